//! Applications that know nothing of a mesh: plain sockets in a pod.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::Shutdown;
use socket2::{Domain, SockRef, Socket, Type};

use crate::eventually::PATIENCE;
use crate::namespace::Namespace;

/// In everything that stand-in servers send: what must never be seen on the wire.
pub const MARKER: &str = "the-payload-marker-that-nobody-may-see";

/// A server in a pod. It stops listening when dropped; connections end as they will.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Server {
    /// Listens in `namespace` as user `uid` and gives each connection to `serve`, in a thread.
    pub fn start(
        namespace: &Namespace,
        uid: u32,
        address: impl Into<SocketAddr>,
        serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> Self {
        let address = address.into();
        Self::accept(namespace.run(uid, || listen(address)), serve)
    }

    fn accept(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> Self {
        let peers = Arc::new(Mutex::new(Vec::new()));
        let (accepting, seen) = (listener.try_clone().unwrap(), Arc::clone(&peers));
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = accepting.accept() {
                seen.lock().unwrap().push(peer);
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { listener, peers }
    }

    /// Speaks first: a line with [`MARKER`] that ends in the name given. Then echoes lines until
    /// the client has ended, and says `bye` before it ends too.
    pub fn greeting(namespace: &Namespace, address: impl Into<SocketAddr>, name: &str) -> Self {
        let name = name.to_owned();
        Self::start(namespace, crate::APPLICATION_UID, address, move |stream| {
            greet(stream, &name)
        })
    }

    /// As [`Server::greeting`], where the calling thread is.
    pub fn greeting_here(address: SocketAddr, name: &str) -> Self {
        let name = name.to_owned();
        Self::accept(listen(address), move |stream| greet(stream, &name))
    }

    /// Who has connected so far.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap().clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread that waits in accept.
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket
        .bind(&address.into())
        .unwrap_or_else(|error| panic!("listen on {address}: {error}"));
    socket.listen(1024).unwrap();
    socket.into()
}

fn greet(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    writeln!(stream, "{MARKER} {name}")?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
    }
    stream.write_all(b"bye\n")?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// What a client that connected can tell about its connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// How a connection ended, seen from the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A clean end, after these bytes.
    End(Vec<u8>),
    /// A reset, after these bytes.
    Reset(Vec<u8>),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End(bytes) => write!(f, "ended after {:?}", String::from_utf8_lossy(bytes)),
            Self::Reset(bytes) => write!(f, "reset after {:?}", String::from_utf8_lossy(bytes)),
        }
    }
}

impl Client {
    /// Connects as the application's user.
    pub fn connect(namespace: &Namespace, to: impl Into<SocketAddr>) -> io::Result<Self> {
        Self::connect_as(namespace, crate::APPLICATION_UID, to)
    }

    pub fn connect_as(
        namespace: &Namespace,
        uid: u32,
        to: impl Into<SocketAddr>,
    ) -> io::Result<Self> {
        let to = to.into();
        namespace
            .run(uid, || TcpStream::connect_timeout(&to, PATIENCE))
            .and_then(Self::new)
    }

    /// Connects from where, and as whom, the calling thread is.
    pub fn here(to: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&to, PATIENCE).and_then(Self::new)
    }

    /// Connects from a port of the caller's choice, as often as it likes.
    pub fn connect_from(
        namespace: &Namespace,
        uid: u32,
        from: SocketAddr,
        to: SocketAddr,
    ) -> io::Result<Self> {
        let connect = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            Ok(socket.into())
        };
        namespace.run(uid, connect).and_then(Self::new)
    }

    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// The next line, without its end. An ended connection is an error.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.socket().write_all(text.as_bytes())
    }

    /// Sends a line to a greeting server and takes its echo.
    pub fn echo(&mut self, text: &str) -> io::Result<String> {
        self.send(&format!("{text}\n"))?;
        self.line()
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) -> io::Result<()> {
        self.socket().shutdown(std::net::Shutdown::Write)
    }

    /// Reads until the connection ends, one way or the other. Silence fails the test.
    pub fn ending(&mut self) -> Ending {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ending::End(bytes),
            Err(error) if is_reset(&error) => Ending::Reset(bytes),
            Err(error) => panic!("neither end nor reset after {} bytes: {error}", bytes.len()),
        }
    }

    /// Says something and reads until the connection ends: some servers speak first, some wait.
    pub fn ending_after_hello(&mut self) -> Ending {
        match self.send("hello\n") {
            // The system tells a reset once, to whoever asks first.
            Err(error) if is_reset(&error) => Ending::Reset(Vec::new()),
            _ => self.ending(),
        }
    }

    /// Makes closing a reset.
    pub fn reset(self) {
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// A whole conversation with a greeting server: its greeting's name, an echo, a clean end.
pub fn converse(namespace: &Namespace, to: impl Into<SocketAddr>) -> io::Result<String> {
    let mut client = Client::connect(namespace, to)?;
    let greeting = client.line()?;
    let echoed = client.echo("are you there")?;
    client.finish()?;
    match client.ending() {
        Ending::End(bytes) if bytes == b"bye\n" && echoed == "are you there" => {}
        other => return Err(io::Error::other(format!("echo {echoed:?}, then {other}"))),
    }
    let name = greeting.strip_prefix(MARKER).map(str::trim_start);
    name.map(str::to_owned)
        .ok_or_else(|| io::Error::other(format!("greeted with {greeting:?}")))
}

/// How an attempt to reach `to` fails: refused or reset, without a byte of an answer.
/// Anything else fails the test.
pub fn refused(namespace: &Namespace, uid: u32, to: impl Into<SocketAddr>) {
    let to = to.into();
    let mut client = match Client::connect_as(namespace, uid, to) {
        Ok(client) => client,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused || is_reset(&error) => {
            return;
        }
        Err(error) => panic!("{to}: not refused but {error}"),
    };
    match client.ending_after_hello() {
        Ending::Reset(bytes) if bytes.is_empty() => {}
        other => panic!("{to}: not refused but {other}"),
    }
}

/// The loopback address of the same family.
pub fn loopback_like(like: IpAddr) -> IpAddr {
    if like.is_ipv4() {
        IpAddr::from([127, 0, 0, 1])
    } else {
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])
    }
}

/// GET over a plain connection: status code and the whole answer.
pub fn http_get(
    namespace: &Namespace,
    to: impl Into<SocketAddr>,
    path: &str,
) -> io::Result<(u16, String)> {
    let to = to.into();
    namespace.run(crate::ROOT_UID, || http_get_here(to, path))
}

/// As [`http_get`], from where the calling thread is.
pub fn http_get_here(to: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut client = Client::here(to)?;
    client.send(&format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"
    ))?;
    let mut answer = String::new();
    client.stream.read_to_string(&mut answer)?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status in {answer:?}")))?;
    Ok((status, answer))
}
