//! Free TCP ports on loopback for the servers we start.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng;

use crate::error::{Context, Result};

/// Below Linux's range for outgoing connections (32768 and up). A port of that range can be taken by any outgoing connection while the server
/// is down for a restart; a client that reconnects in a loop may even connect to itself.
const RANGE: std::ops::Range<u16> = 18_000..32_000;

/// A port nobody listens on at this moment. Another process may take it before it is used: the caller retries.
pub fn free_port() -> Result<u16> {
    for _ in 0..64 {
        let port = rand::rng().random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    any.map(|address| address.port())
        .doing(|| "find a free port on 127.0.0.1".to_owned())
}
