//! Free TCP ports on loopback for the servers we start.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::{Mutex, PoisonError},
};

use rand::Rng;

use crate::error::{Context, Result};

/// Below Linux's range for outgoing connections (32768 and up). A port of that range can be taken by any outgoing connection
/// while the server is down for a restart; a client that reconnects in a loop may even connect to itself.
const RANGE: std::ops::Range<u16> = 18_000..32_000;
/// How many ports of the range a process has for itself.
const BLOCK: u16 = 1000;

/// The ports of one process. Another that starts servers at the same time takes another block, so that no port is given to
/// two servers between here and the moment at which they listen.
struct Ports {
    first: u16,
    next: u16,
    /// A UDP socket on the block's first number says that it is taken for as long as the process lives.
    _taken: UdpSocket,
}

impl Ports {
    fn reserve() -> Option<Self> {
        let blocks = (RANGE.end - RANGE.start) / BLOCK;
        let from = rand::rng().random_range(0..blocks);
        (0..blocks).find_map(|offset| {
            let first = RANGE.start + (from + offset) % blocks * BLOCK;
            let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, first)).ok()?;
            Some(Self {
                first,
                next: 0,
                _taken: taken,
            })
        })
    }

    fn take(&mut self) -> Option<u16> {
        (0..BLOCK).find_map(|_| {
            let port = self.first + self.next;
            self.next = (self.next + 1) % BLOCK;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
        })
    }
}

/// A port that nobody listens on, and that is given to no other server until a thousand more were asked for. With more than
/// a dozen processes that ask, it may be any port that is free at the moment.
pub fn free_port() -> Result<u16> {
    static PORTS: Mutex<Option<Ports>> = Mutex::new(None);
    let mut ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    if ports.is_none() {
        *ports = Ports::reserve();
    }
    if let Some(port) = ports.as_mut().and_then(Ports::take) {
        return Ok(port);
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    any.map(|address| address.port())
        .doing(|| "find a free port on 127.0.0.1".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_port_is_given_once_though_nobody_listens_on_it_yet() {
        let given: Vec<u16> = (0..300).map(|_| free_port().unwrap()).collect();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len());
    }

    #[test]
    fn two_processes_have_different_ports() {
        let (one, two) = (Ports::reserve().unwrap(), Ports::reserve().unwrap());
        assert_ne!(one.first, two.first);
    }
}
