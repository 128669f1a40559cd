//! The application that is called, in a process of its own: it has as many sockets as its callers
//! have, and a process may open only so many.

use std::process::Stdio;

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpSocket},
    process::{Child, Command},
};

use crate::process::raise_open_files;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Ends when dropped.
pub(crate) struct Application {
    _process: Child,
    port: u16,
}

impl Application {
    /// Starts this program again, as the application.
    pub(crate) async fn start(connections: usize) -> anyhow::Result<Self> {
        // it ends with us, however we end
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(std::env::current_exe()?)
            .args(["--serve", &connections.to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process
            .stdout
            .take()
            .context("the application has no output")?;
        let mut said = String::new();
        BufReader::new(output).read_line(&mut said).await?;
        let port = said.trim().parse();
        Ok(Self {
            _process: process,
            port: port.with_context(|| format!("the application named its port {said:?}"))?,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// Gives every caller back what it sends, until this process is ended.
pub(crate) async fn serve(connections: usize) -> anyhow::Result<()> {
    raise_open_files(connections)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?.port());
    accept(listener).await
}

async fn accept(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
    }
}
