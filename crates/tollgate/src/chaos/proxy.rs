//! A wire that can be cut: TCP passed on to the provider, until somebody says otherwise.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// The wire. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Wire {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    refusing: AtomicBool,
    cut: Mutex<CancellationToken>,
}

impl Wire {
    /// Breaks every connection there is.
    pub(super) fn cut(&self) {
        let mut cut = self.inner.cut.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *cut).cancel();
    }

    /// Takes no new connections, or takes them again.
    pub(super) fn refuse(&self, refuse: bool) {
        self.inner.refusing.store(refuse, Ordering::Relaxed);
    }

    /// Passes connections of `listener` on to `target`, for ever.
    pub(super) async fn run(self, listener: TcpListener, target: String) {
        loop {
            let Ok((mut near, _)) = listener.accept().await else {
                continue;
            };
            if self.inner.refusing.load(Ordering::Relaxed) {
                continue;
            }
            let cut = self.inner.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let target = target.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(target).await else {
                    return;
                };
                for end in [&near, &far] {
                    let _ = end.set_nodelay(true);
                }
                tokio::select! {
                    () = cut.cancelled() => {}
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    }
}
