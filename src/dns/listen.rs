//! The sockets: UDP datagrams, and TCP connections with a length in front of every message (RFC 1035, 4.2.2).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::DnsError;
use super::answer::{Responder, Verdict};
use super::upstream::Transport;

/// Queries that wait for an upstream, and TCP connections, at a time; more are dropped, and clients ask again.
const MOST_WAITING: usize = 1024;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a socket error that would otherwise repeat at once.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// The sockets of one address.
pub(super) struct Listener {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

/// Binds UDP and TCP on every address.
pub(super) async fn bind(addresses: &[SocketAddr]) -> Result<Vec<Listener>, DnsError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let failed = |source| DnsError::Listen { address: *address, source };
        let udp = Arc::new(UdpSocket::bind(address).await.map_err(failed)?);
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        listeners.push(Listener { udp, tcp });
    }
    Ok(listeners)
}

/// Answers on all listeners until `stop`.
pub(super) async fn serve(listeners: Vec<Listener>, responder: Arc<Responder>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let server = Arc::new(Server {
        responder,
        places: Arc::new(Semaphore::new(MOST_WAITING)),
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    for Listener { udp, tcp } in listeners {
        tasks.spawn(server.clone().datagrams(udp));
        tasks.spawn(server.clone().connections(tcp));
    }
    stop.cancelled().await;
    tasks.close();
    tasks.wait().await;
}

struct Server {
    responder: Arc<Responder>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    async fn datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; 4096];
        while let Some(received) = self.stop.run_until_cancelled(socket.recv_from(&mut buffer)).await {
            match received {
                Ok((length, client)) => self.datagram(&socket, &buffer[..length], client).await,
                Err(error) => {
                    debug!(%error, "receiving a query failed");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn datagram(self: &Arc<Self>, socket: &Arc<UdpSocket>, bytes: &[u8], client: SocketAddr) {
        match self.responder.decide(bytes, Transport::Udp) {
            Verdict::Drop => {}
            Verdict::Answer(answer) => send(socket, &answer, client).await,
            waiting => {
                let Ok(place) = self.places.clone().try_acquire_owned() else {
                    debug!("too many queries wait for an upstream: one is dropped");
                    return;
                };
                let (server, socket, bytes) = (self.clone(), socket.clone(), bytes.to_vec());
                self.tasks.spawn(async move {
                    let _place = place;
                    let resolve = server.responder.resolve(waiting, &bytes, Transport::Udp);
                    if let Some(Some(answer)) = server.stop.run_until_cancelled(resolve).await {
                        send(&socket, &answer, client).await;
                    }
                });
            }
        }
    }

    async fn connections(self: Arc<Self>, listener: TcpListener) {
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match (accepted, self.places.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(place)) => {
                    self.tasks.spawn(self.clone().connection(stream, place));
                }
                (Ok(_), Err(_)) => debug!("too many connections: one is closed"),
                (Err(error), _) => {
                    warn!(%error, "accepting a DNS connection failed");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, _place: OwnedSemaphorePermit) {
        let served = async {
            while let Ok(message) = tokio::time::timeout(IDLE, read_message(&mut stream)).await {
                let Some(message) = message? else { break };
                let verdict = self.responder.decide(&message, Transport::Tcp);
                let Some(answer) = self.responder.resolve(verdict, &message, Transport::Tcp).await else {
                    break;
                };
                write_message(&mut stream, &answer).await?;
            }
            io::Result::Ok(())
        };
        if let Some(Err(error)) = self.stop.run_until_cancelled(served).await {
            debug!(%error, "a DNS connection broke");
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        debug!(%error, "sending an answer failed");
    }
}

/// The next message, or `None` at the end of the stream.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}
