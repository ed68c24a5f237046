//! The resolvers of the host, which get what is not the cluster's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tracing::{debug, warn};

/// How long one server may take before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// Where systemd-resolved keeps the servers behind its stub on 127.0.0.53.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// How a client asks, and so how its question is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// The servers to ask, in order.
#[derive(Debug)]
pub(super) struct Upstreams {
    servers: Vec<SocketAddr>,
}

impl Upstreams {
    /// Reads the host's resolver file. Our own addresses are left out, since asking them would go in a circle.
    pub(super) fn from_resolv_conf(path: &Path, own: &[SocketAddr]) -> Self {
        let mut servers = read(path);
        if servers.iter().all(|server| *server == STUB) {
            let behind = read(Path::new(BEHIND_STUB));
            if !behind.is_empty() {
                servers = behind;
            }
        }
        servers.retain(|server| !own.iter().any(|listen| listen.ip() == *server));
        if servers.is_empty() {
            warn!(file = %path.display(), "the host names no resolver: only names of the cluster are answered");
        }
        Upstreams { servers: servers.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect() }
    }

    #[cfg(test)]
    pub(super) fn of(servers: Vec<SocketAddr>) -> Self {
        Upstreams { servers }
    }

    /// Passes a query on and returns the first answer, with the client's own id.
    pub(super) async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let client_id = query.get(..2)?;
        // An id of our own, so that who guesses the client's cannot answer in the server's place.
        let mut question = query.to_vec();
        question[..2].copy_from_slice(&rand::random::<[u8; 2]>());
        for server in self.servers.iter().cycle().take(self.servers.len() * ROUNDS) {
            let exchange = async {
                match transport {
                    Transport::Udp => over_udp(*server, &question).await,
                    Transport::Tcp => over_tcp(*server, &question).await,
                }
            };
            match tokio::time::timeout(PATIENCE, exchange).await {
                Ok(Ok(mut answer)) => {
                    answer[..2].copy_from_slice(client_id);
                    return Some(answer);
                }
                Ok(Err(error)) => debug!(%server, %error, "resolver failed"),
                Err(_) => debug!(%server, "resolver took too long"),
            }
        }
        None
    }
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&buffer[..length], question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if answers(&answer, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Whether a datagram is an answer to the question: its id, and the response bit.
fn answers(answer: &[u8], question: &[u8]) -> bool {
    answer.len() >= 12 && answer[..2] == question[..2] && answer[2] & 0x80 != 0
}

fn read(path: &Path) -> Vec<IpAddr> {
    match std::fs::read_to_string(path) {
        Ok(text) => nameservers(&text),
        Err(error) => {
            debug!(file = %path.display(), %error, "no resolver file");
            Vec::new()
        }
    }
}

fn nameservers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse().ok();
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_file_names_servers() {
        let text =
            "# comment\nnameserver 10.0.0.1\n search example.com\nnameserver\tfd00::1\nnameserver bad\n";
        let expected: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(nameservers(text), expected);
    }

    #[test]
    fn own_address_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 10.43.0.10\nnameserver 192.0.2.1\n").unwrap();
        let upstreams = Upstreams::from_resolv_conf(&file, &["10.43.0.10:53".parse().unwrap()]);
        assert_eq!(upstreams.servers, ["192.0.2.1:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn answer_has_the_clients_id_and_a_strangers_is_ignored() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstreams = Upstreams::of(vec![server.local_addr().unwrap()]);
        let mut query = vec![0; 12];
        query[..2].copy_from_slice(b"id");
        let (answer, ()) = tokio::join!(upstreams.ask(&query, Transport::Udp), async {
            let mut buffer = [0; 512];
            let (length, client) = server.recv_from(&mut buffer).await.unwrap();
            let mut wrong = buffer[..length].to_vec();
            wrong[0] ^= 0xff;
            wrong[2] = 0x80;
            server.send_to(&wrong, client).await.unwrap();
            buffer[2] = 0x80;
            buffer[11] = 7;
            server.send_to(&buffer[..length], client).await.unwrap();
        });
        let answer = answer.unwrap();
        assert_eq!((&answer[..2], answer[11]), (&b"id"[..], 7));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_servers_end_in_no_answer() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstreams = Upstreams::of(vec![silent.local_addr().unwrap()]);
        assert_eq!(upstreams.ask(&[0; 12], Transport::Udp).await, None);
        assert_eq!(Upstreams::of(Vec::new()).ask(&[0; 12], Transport::Udp).await, None);
    }
}
