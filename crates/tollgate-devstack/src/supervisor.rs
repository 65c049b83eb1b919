//! Runs Tollgate's own roles as child processes of `tollgate up`, each restarted when it dies, and stops them in order.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout_at};

use crate::error::{Error, Result};
use crate::probe;
use crate::process::{Environment, Managed, Spec};

/// Where a role's output goes.
#[derive(Debug, Clone)]
pub enum RoleLog {
    /// Appended to this file; its folder must exist.
    File(PathBuf),
    /// To where our own goes.
    Inherit,
}

/// One process to keep running.
#[derive(Debug, Clone)]
pub struct Role {
    /// Unique among the roles of a supervisor.
    pub name: String,
    pub command: PathBuf,
    pub args: Vec<String>,
    /// All there is in its environment, but for what any program needs (`PATH` and the like).
    pub env: Vec<(String, String)>,
    pub log: RoleLog,
    /// Plain `http://host:port/path` that answers 2xx when the role is ready; without one it is ready once it runs.
    pub ready_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleState {
    Starting {
        pid: u32,
    },
    Ready {
        pid: u32,
    },
    /// `status` is missing if the process could not be started at all.
    Exited {
        status: Option<ExitStatus>,
        restarting_in: Duration,
    },
    /// By [`Supervisor::stop`]; final.
    Stopped,
}

impl RoleState {
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Starting { pid } | Self::Ready { pid } => Some(*pid),
            Self::Exited { .. } | Self::Stopped => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleChange {
    pub role: String,
    pub state: RoleState,
}

/// When a role that died is started again.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Wait before the first restart; doubled at each one after.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// After being ready this long, the wait begins anew at the first.
    pub healthy_after: Duration,
    /// Between two looks at the ready URL.
    pub probe_every: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(5),
            healthy_after: Duration::from_secs(30),
            probe_every: Duration::from_millis(20),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Signal(Signal),
    /// Ask it to end, and do not start it again.
    Stop,
    /// The budget is spent.
    StopNow,
}

/// The running roles. Dropping it kills them; [`Supervisor::stop`] is the orderly way.
pub struct Supervisor {
    /// In the order of stopping.
    names: Vec<String>,
    orders: HashMap<String, mpsc::Sender<Order>>,
    states: watch::Receiver<BTreeMap<String, RoleState>>,
    tasks: JoinSet<()>,
}

impl Supervisor {
    /// Starts all roles. The receiver has every change from the first on; one that reads too late misses the oldest ones and is told so.
    pub fn start(roles: Vec<Role>, policy: Policy) -> (Self, broadcast::Receiver<RoleChange>) {
        let (changes, receiver) = broadcast::channel(256);
        let (states_out, states) = watch::channel(BTreeMap::new());
        let mut tasks = JoinSet::new();
        let mut orders = HashMap::new();
        let names = roles.iter().map(|role| role.name.clone()).collect();
        for role in roles {
            let (order, inbox) = mpsc::channel(4);
            orders.insert(role.name.clone(), order);
            let keeper = Keeper {
                role,
                policy,
                inbox,
                changes: changes.clone(),
                states: states_out.clone(),
            };
            tasks.spawn(keeper.run());
        }
        (
            Self {
                names,
                orders,
                states,
                tasks,
            },
            receiver,
        )
    }

    /// The latest state of each role by name.
    pub fn states(&self) -> watch::Receiver<BTreeMap<String, RoleState>> {
        self.states.clone()
    }

    /// `None` if the role is not running at this moment.
    pub fn pid(&self, role: &str) -> Option<u32> {
        self.states.borrow().get(role).and_then(RoleState::pid)
    }

    /// Waits until all roles are ready; false if they are not within `limit`.
    pub async fn all_ready(&self, limit: Duration) -> bool {
        let wanted = self.names.len();
        let mut states = self.states.clone();
        let ready = |states: &BTreeMap<String, RoleState>| {
            states
                .values()
                .filter(|state| matches!(state, RoleState::Ready { .. }))
                .count()
                == wanted
        };
        tokio::time::timeout(limit, states.wait_for(ready))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// SIGKILL to the role's process, if there is one; the role is then restarted like any that died.
    pub async fn kill(&self, role: &str) -> Result<()> {
        self.signal(role, Signal::KILL).await
    }

    /// Asks the role's process to end, and waits until another is ready; false if none is within `limit`.
    pub async fn restart(&self, role: &str, limit: Duration) -> Result<bool> {
        let before = self.pid(role);
        self.signal(role, Signal::TERM).await?;
        let mut states = self.states.clone();
        let again = states.wait_for(|states| {
            let state = states.get(role);
            matches!(state, Some(RoleState::Ready { .. })) && state.and_then(RoleState::pid) != before
        });
        Ok(tokio::time::timeout(limit, again).await.is_ok_and(|seen| seen.is_ok()))
    }

    /// Holds the role's process where it is, as a machine does that swaps or is paused, or lets it go on.
    pub async fn hold(&self, role: &str, hold: bool) -> Result<()> {
        self.signal(role, if hold { Signal::STOP } else { Signal::CONT }).await
    }

    async fn signal(&self, role: &str, signal: Signal) -> Result<()> {
        if !self.orders.contains_key(role) {
            return Err(Error::UnknownRole(role.to_owned()));
        }
        // A role that was stopped has nobody to take the order, and no process.
        self.send(role, Order::Signal(signal)).await;
        Ok(())
    }

    /// Asks the roles to end (SIGTERM) one after the other, in the order they were given: the next is asked when the one before has ended or
    /// has used its share of what is left of `budget`. What still runs at the end of the budget is killed.
    pub async fn stop(mut self, budget: Duration) {
        let end = tokio::time::Instant::now() + budget;
        let mut states = self.states.clone();
        let mut left = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        for name in &self.names {
            self.send(name, Order::Stop).await;
            let now = tokio::time::Instant::now();
            let share = end.saturating_duration_since(now) / left.max(1);
            let stopped = states.wait_for(|states| states.get(name) == Some(&RoleState::Stopped));
            // Late or not, the next one's turn has come.
            let _ = timeout_at(now + share, stopped).await;
            left = left.saturating_sub(1);
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout_at(end, all).await.is_err() {
            for name in &self.names {
                self.send(name, Order::StopNow).await;
            }
            while self.tasks.join_next().await.is_some() {}
        }
    }

    async fn send(&self, name: &str, order: Order) {
        if let Some(sender) = self.orders.get(name) {
            // Fails only if the role's task has ended, which is what is wanted.
            let _ = sender.send(order).await;
        }
    }
}

/// The task that keeps one role running.
struct Keeper {
    role: Role,
    policy: Policy,
    inbox: mpsc::Receiver<Order>,
    changes: broadcast::Sender<RoleChange>,
    states: watch::Sender<BTreeMap<String, RoleState>>,
}

/// How one run of the process ended.
enum Ended {
    ByItself {
        status: Option<ExitStatus>,
        ready_for: Duration,
    },
    ByOrder,
}

impl Keeper {
    async fn run(mut self) {
        let mut wait = self.policy.first_wait;
        loop {
            let (status, ready_for) = match self.run_once().await {
                Ended::ByOrder => break,
                Ended::ByItself { status, ready_for } => (status, ready_for),
            };
            if ready_for >= self.policy.healthy_after {
                wait = self.policy.first_wait;
            }
            self.report(RoleState::Exited {
                status,
                restarting_in: wait,
            });
            if self.stopped_while_waiting(wait).await {
                break;
            }
            wait = (wait * 2).min(self.policy.longest_wait);
        }
        self.report(RoleState::Stopped);
    }

    async fn run_once(&mut self) -> Ended {
        let mut process = match Managed::spawn(&spec(&self.role)) {
            Ok(process) => process,
            Err(error) => {
                tracing::error!(
                    role = self.role.name,
                    error = &error as &dyn std::error::Error,
                    "role not started"
                );
                return Ended::ByItself {
                    status: None,
                    ready_for: Duration::ZERO,
                };
            }
        };
        let pid = process.pid().unwrap_or_default();
        self.report(RoleState::Starting { pid });
        let ready = until_ready(self.role.ready_url.clone(), self.policy.probe_every);
        tokio::pin!(ready);
        let mut ready_at: Option<Instant> = None;
        loop {
            tokio::select! {
                // Death first: a probe answered by somebody else must not make a dead role ready.
                biased;
                status = process.wait() => {
                    let ready_for = ready_at.map_or(Duration::ZERO, |at| at.elapsed());
                    return Ended::ByItself { status: status.ok(), ready_for };
                }
                order = self.inbox.recv() => match order {
                    Some(Order::Signal(signal)) => process.signal(signal),
                    Some(Order::Stop) => {
                        self.end(&mut process).await;
                        return Ended::ByOrder;
                    }
                    Some(Order::StopNow) | None => return Ended::ByOrder,
                },
                () = &mut ready, if ready_at.is_none() => {
                    ready_at = Some(Instant::now());
                    self.report(RoleState::Ready { pid });
                }
            }
        }
    }

    /// Waits for the end it is asked for; another order on the way means now.
    async fn end(&mut self, process: &mut Managed) {
        process.signal(Signal::TERM);
        let waited = tokio::select! {
            status = process.wait() => status,
            _ = self.inbox.recv() => process.kill().await,
        };
        if let Err(error) = waited {
            tracing::error!(
                role = self.role.name,
                error = &error as &dyn std::error::Error,
                "role not waited for"
            );
        }
    }

    async fn stopped_while_waiting(&mut self, wait: Duration) -> bool {
        let end = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(end) => return false,
                order = self.inbox.recv() => if !matches!(order, Some(Order::Signal(_))) {
                    return true;
                },
            }
        }
    }

    fn report(&self, state: RoleState) {
        self.states.send_modify(|states| {
            states.insert(self.role.name.clone(), state);
        });
        // Nobody needs to listen.
        let _ = self.changes.send(RoleChange {
            role: self.role.name.clone(),
            state,
        });
    }
}

fn spec(role: &Role) -> Spec {
    let log = match &role.log {
        RoleLog::File(path) => Some(path.clone()),
        RoleLog::Inherit => None,
    };
    Spec {
        program: role.command.clone(),
        args: role.args.clone(),
        environment: Environment::With(role.env.clone()),
        log,
        pid_file: None,
        run_as: None,
        directory: None,
        drop_signal: Signal::KILL,
        orphan_signal: Signal::TERM,
    }
}

async fn until_ready(url: Option<String>, every: Duration) {
    let Some(url) = url else { return };
    while let Err(state) = probe::http_ok(&url).await {
        tracing::trace!(state, "role not ready yet");
        sleep(every).await;
    }
}

#[cfg(test)]
mod tests;
