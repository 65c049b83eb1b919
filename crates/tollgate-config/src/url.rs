//! Addresses of others: providers, NATS, the collector, ourselves as others see us.
//!
//! Parsed by the library with which requests are sent later, so that both see the same host. No message repeats a value:
//! an address may carry a password.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

type Checked = Result<String, &'static str>;

/// A provider's address: `https://host/v1`, or plain `http` to a host that is not on the open internet.
///
/// Returned without a final `/`, for paths to be added.
pub(crate) fn base_url(text: &str) -> Checked {
    let url = web(text)?;
    if url.scheme() == "http" && !url.host().is_some_and(|host| is_private(&host)) {
        return Err("plain http would send the key readably over the internet, expected https");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Where an issuer's keys are: over https, or from a host that is not on the open internet.
pub fn is_key_source(text: &str) -> bool {
    let found = parsed(text).filter(|url| url.fragment().is_none() && !has_userinfo(text));
    found.is_some_and(|url| match url.scheme() {
        "https" => true,
        "http" => url.host().is_some_and(|host| is_private(&host)),
        _ => false,
    })
}

pub(crate) fn key_source(text: &str) -> Checked {
    if is_key_source(text) {
        return Ok(text.to_owned());
    }
    Err("expected the address of a JWK set such as https://login.example.com/keys; plain http for private hosts only")
}

/// Where spans are pushed to.
pub(crate) fn collector(text: &str) -> Checked {
    web(text).map(|url| url.as_str().trim_end_matches('/').to_owned())
}

/// `http://host:port`, under which other roles reach this one.
pub(crate) fn advertise(text: &str) -> Checked {
    const MESSAGE: &str = "expected an address such as http://10.0.0.5:8082, without a path";
    let url = web(text)?;
    if url.scheme() != "http" || url.path() != "/" || url.port_or_known_default() == Some(0) {
        return Err(MESSAGE);
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn web(text: &str) -> Result<Url, &'static str> {
    let url = parsed(text).ok_or("expected a URL such as https://host/v1")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("expected a URL that begins with https:// or http://");
    }
    if has_userinfo(text) {
        return Err("a URL here must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a URL here must not hold a query (?) or fragment (#)");
    }
    Ok(url)
}

/// The library drops tabs and line breaks, repairs backslashes and missing slashes; we refuse what needs repair.
fn parsed(text: &str) -> Option<Url> {
    let tidy = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let rest = text.split_once("://").map(|(_, rest)| rest);
    (tidy && rest.is_some_and(|rest| !rest.starts_with('/'))).then(|| Url::parse(text).ok())?
}

/// Whether there is one, be it empty as in `https://@host`, which the library drops.
fn has_userinfo(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split(['/', '?', '#'])
        .next()
        .is_some_and(|authority| authority.contains('@'))
}

fn is_private(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => is_private_v4(*address),
        Host::Ipv6(address) => is_private_v6(*address),
        Host::Domain(domain) => {
            let domain = domain.trim_end_matches('.');
            let last = domain.rsplit('.').next().unwrap_or_default();
            // A single label is a container or a machine next door. The others are set aside for names that the public
            // DNS never has: RFC 6761, RFC 6762, RFC 8375, and ICANN's `internal`.
            !domain.contains('.')
                || matches!(last, "localhost" | "local" | "internal")
                || domain.ends_with(".home.arpa")
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_private()
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    match IpAddr::V6(address).to_canonical() {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

/// `nats://host:port`, several separated by commas; a password belongs in `NATS_URL`.
pub(crate) fn nats_in_file(text: &str) -> Checked {
    let servers = nats(text)?;
    if servers.contains('@') {
        return Err("a password must not be in this file, set NATS_URL instead");
    }
    Ok(servers)
}

/// The same from the environment, where it may hold a user name and password.
pub(crate) fn nats(text: &str) -> Checked {
    const MESSAGE: &str = "expected nats://host:port, several separated by commas";
    let mut servers = Vec::new();
    for server in text.split(',').map(str::trim) {
        let server = if server.contains("://") {
            server.to_owned()
        } else {
            format!("nats://{server}")
        };
        let url = parsed(&server).ok_or(MESSAGE)?;
        let host = url.host_str().is_some_and(|host| !host.is_empty());
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "nats" | "tls") || !host || !bare {
            return Err(MESSAGE);
        }
        servers.push(server);
    }
    Ok(servers.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_https_or_near() {
        for text in [
            "https://api.openai.com/v1",
            "https://8.8.8.8/v1",
            "http://localhost:11434/v1",
            "http://127.0.0.1:8000/v1",
            "http://10.1.2.3/v1",
            "http://172.16.0.1/v1",
            "http://192.168.1.1/v1",
            "http://[::1]:8000/v1",
            "http://[fd00::1]/v1",
            "http://vllm:8000/v1",
            "http://vllm.models.svc.cluster.local/v1",
            "http://host.docker.internal:11434/v1",
        ] {
            assert_eq!(base_url(text).as_deref(), Ok(text));
        }
        assert_eq!(base_url("https://host/v1/").as_deref(), Ok("https://host/v1"));
        assert_eq!(base_url("https://host").as_deref(), Ok("https://host"));
    }

    #[test]
    fn what_a_provider_is_not() {
        for text in [
            "",
            "api.openai.com/v1",
            "ftp://host/v1",
            "file:///etc/passwd",
            "https://",
            "https:///v1",
            "https:host",
            "http://api.openai.com/v1",
            "http://8.8.8.8/v1",
            "http://172.32.0.1/v1",
            "http://169.254.169.254/v1",
            "http://134744072/v1",
            "http://0.0.0.0/v1",
            "http://[2001:db8::1]/v1",
            "http://[::ffff:8.8.8.8]/v1",
            "http://localhost.example.com/v1",
            "https://user:pass@host/v1",
            "https://user@host/v1",
            "https://@host/v1",
            "https://host/v1?key=1",
            "https://host/v1?",
            "https://host/v1#a",
            "https://ho st/v1",
            "https://host\\@evil/v1",
            "https://host/\nv1",
        ] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn advertised_addresses_have_no_path() {
        assert_eq!(
            advertise("http://ingress-0.ingress:8082/").as_deref(),
            Ok("http://ingress-0.ingress:8082")
        );
        for text in [
            "10.0.0.5:8082",
            "https://a:1",
            "http://a:1/b",
            "http://a:0",
            "http://a:99999",
            "http://",
        ] {
            assert!(advertise(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nats_servers() {
        assert_eq!(
            nats("nats://a:4222, tls://b:4222,c").as_deref(),
            Ok("nats://a:4222,tls://b:4222,nats://c")
        );
        assert!(nats("nats://user:pass@a:4222").is_ok());
        assert!(nats_in_file("nats://user:pass@a:4222").is_err());
        for text in ["", ",", "nats://", "http://a", "nats://a/b", "nats://a:x", "nats://a b"] {
            assert!(nats(text).is_err(), "{text}");
        }
    }
}
