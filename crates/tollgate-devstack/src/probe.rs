//! Asks a server whether it is ready, in its own protocol and by hand: one request each, without a client library, so that this crate needs
//! neither SQL nor HTTP dependencies. An `Err` says what was seen, for the error of a start that took too long.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(2);

async fn limited<T>(what: &str, work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(LIMIT, work).await {
        Ok(result) => result.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: no answer in {} s", LIMIT.as_secs())),
    }
}

/// GET of a plain `http://host:port/path`; `Ok` for a 2xx answer.
pub(crate) async fn http_ok(url: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("{url} is not a plain http URL"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let line = limited(url, async {
        let mut stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes()).await?;
        read_line(&mut stream).await
    })
    .await?;
    match line.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => Err(format!("{url} answered {line:?}")),
    }
}

/// `Ok` if the NATS server at this port greets with this name; the name tells our server from another's that took the port first.
pub(crate) async fn nats_greets(port: u16, server_name: &str) -> Result<(), String> {
    let what = format!("127.0.0.1:{port}");
    let line = limited(&what, async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        read_line(&mut stream).await
    })
    .await?;
    if line.starts_with("INFO ") && line.contains(&format!("\"{server_name}\"")) {
        return Ok(());
    }
    Err(format!("{what} greeted as another server"))
}

/// `Ok` if a Postgres at this port lets clients in as far as the password question (or refuses them for another reason than not being up).
pub(crate) async fn postgres_answers(port: u16) -> Result<(), String> {
    let what = format!("127.0.0.1:{port}");
    let answer = limited(&what, async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(&startup_message()).await?;
        read_message(&mut stream).await
    })
    .await?;
    judge_postgres(&answer).map_err(|reason| format!("{what}: {reason}"))
}

/// StartupMessage of protocol 3.0: length, version, then names and values, each ended by a zero byte.
fn startup_message() -> Vec<u8> {
    let fields = b"user\0tollgate\0database\0tollgate\0\0";
    let mut message = Vec::with_capacity(8 + fields.len());
    message.extend_from_slice(&(8 + fields.len() as u32).to_be_bytes());
    message.extend_from_slice(&196_608_u32.to_be_bytes());
    message.extend_from_slice(fields);
    message
}

/// One message with its type byte first; the length is dropped.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?.saturating_sub(4).min(1 << 16);
    let mut message = vec![0; 1 + length as usize];
    message[0] = kind;
    stream.read_exact(&mut message[1..]).await?;
    Ok(message)
}

/// 57P03 is "cannot connect now": starting up, shutting down or recovering.
fn judge_postgres(message: &[u8]) -> Result<(), String> {
    match message.split_first() {
        Some((b'R', _)) => Ok(()),
        Some((b'E', fields)) => {
            let code = fields
                .split(|byte| *byte == 0)
                .find_map(|field| field.strip_prefix(b"C"));
            if code == Some(b"57P03") {
                Err("the database system is starting up".to_owned())
            } else {
                Ok(())
            }
        }
        _ => Err("the answer is not Postgres's".to_owned()),
    }
}

/// The first line, without its end; at most 64 KiB are read.
async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < 1 << 16 {
        if stream.read_buf(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let first = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(first).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starting_up_is_not_ready() {
        judge_postgres(b"R\0\0\0\x0a").unwrap();
        judge_postgres(b"ESFATAL\0C53300\0Mtoo many\0\0").unwrap();
        judge_postgres(b"ESFATAL\0VFATAL\0C57P03\0Mstarting\0\0").unwrap_err();
        judge_postgres(b"HTTP").unwrap_err();
    }

    #[tokio::test]
    async fn a_line_in_pieces_is_read_whole() {
        let mut stream = tokio_test_stream(&["HTTP/1.1 2", "00 OK\r", "\nrest"]);
        assert_eq!(read_line(&mut stream).await.unwrap(), "HTTP/1.1 200 OK");
    }

    fn tokio_test_stream(pieces: &[&'static str]) -> impl AsyncRead + Unpin + use<> {
        let mut pieces = pieces.iter().rev().map(|piece| piece.as_bytes()).collect::<Vec<_>>();
        let mut all: Box<dyn AsyncRead + Unpin> = Box::new(tokio::io::empty());
        for piece in pieces.drain(..) {
            all = Box::new(piece.chain(all));
        }
        all
    }
}
