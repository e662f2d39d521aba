//! A real Valkey for one test.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let valkey = saker_testing::valkey::Valkey::start()?;
//! let online_store = valkey.url(0);
//! valkey.kill();      // connections break, and new ones are refused
//! valkey.restart()?;  // same port, same data
//! valkey.freeze()?;   // connections stay, and nothing answers
//! valkey.thaw()?;
//! # let _ = online_store;
//! # Ok(())
//! # }
//! ```

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use triton_testing::{ports::free_port, process::ServerProcess};

use crate::runtime;

/// How to start a Valkey; see [`Valkey::builder`].
#[derive(Debug, Default)]
pub struct Builder {
    unix: bool,
    user: Option<(String, String)>,
    arguments: Vec<String>,
}

impl Builder {
    /// Listens on a unix socket in place of a TCP port.
    #[must_use]
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Allows only this user, with all rights.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// Further words on the server's command line, such as `--cluster-enabled yes`.
    #[must_use]
    pub fn arguments(mut self, words: &[&str]) -> Self {
        self.arguments
            .extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// Returns an error if Valkey is not installed (the message says how to get it) or does not come up.
    pub fn start(self) -> Result<Valkey> {
        let program = runtime::valkey_server()?;
        let folder = tempfile::Builder::new().prefix("saker-valkey-").tempdir()?;
        let port = if self.unix { 0 } else { free_port()? };
        let place = folder.path().to_string_lossy().into_owned();
        let mut arguments: Vec<String> = [
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--dir",
            &place,
            // An append-only file keeps the data across `kill` and `restart`.
            "--appendonly",
            "yes",
            "--appendfsync",
            "no",
            "--save",
            "",
        ]
        .map(str::to_owned)
        .to_vec();
        if self.unix {
            arguments.extend(["--unixsocket".to_owned(), format!("{place}/valkey.sock")]);
        }
        if let Some((name, password)) = &self.user {
            let rules = [name, "on", &format!(">{password}"), "~*", "&*", "+@all"];
            arguments.push("--user".to_owned());
            arguments.extend(rules.map(str::to_owned));
            if name != "default" {
                arguments.extend(["--user", "default", "off"].map(str::to_owned));
            }
        }
        arguments.extend(self.arguments);
        let valkey = Valkey {
            process: Mutex::new(None),
            program,
            arguments,
            port,
            user: self.user,
            folder,
        };
        valkey.restart()?;
        Ok(valkey)
    }
}

/// A running Valkey; it is killed on drop, and when this process ends in whatever way.
#[derive(Debug)]
pub struct Valkey {
    // First, so that the server ends before its folder goes.
    process: Mutex<Option<ServerProcess>>,
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    user: Option<(String, String)>,
    folder: tempfile::TempDir,
}

impl Valkey {
    /// Starts a server on a free TCP port, without users.
    ///
    /// # Errors
    /// Returns an error if Valkey is not installed (the message says how to get it) or does not come up.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Says how to start a server.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The address of a database, with the user's name and password where there is one:
    /// `redis://127.0.0.1:PORT/0`, or `redis+unix://…?db=0`.
    #[must_use]
    pub fn url(&self, database: u8) -> String {
        if self.port == 0 {
            let socket = self.socket();
            let login = self.user.as_ref().map_or_else(String::new, |(name, word)| {
                format!("&user={name}&pass={word}")
            });
            return format!("redis+unix://{}?db={database}{login}", socket.display());
        }
        let login = self
            .user
            .as_ref()
            .map_or_else(String::new, |(name, word)| format!("{name}:{word}@"));
        format!("redis://{login}127.0.0.1:{}/{database}", self.port)
    }

    /// The TCP port on 127.0.0.1; 0 for a unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's folder, with its data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Ends the server as an operator does, and waits until it has gone. The data stay.
    ///
    /// # Errors
    /// Returns an error if the server still runs after ten seconds.
    pub fn stop(&self) -> Result<()> {
        if let Some(mut process) = self.lock().take() {
            process.signal(Signal::CONT)?;
            process.signal(Signal::TERM)?;
            process.wait(Duration::from_secs(10))?;
        }
        Ok(())
    }

    /// Kills the server at once; what it had answered for stays.
    pub fn kill(&self) {
        if let Some(mut process) = self.lock().take() {
            process.kill();
        }
    }

    /// Kills the server if it runs, and starts it on the same port with the same data.
    ///
    /// # Errors
    /// Returns an error if it does not answer within ten seconds.
    pub fn restart(&self) -> Result<()> {
        self.kill();
        let mut process = ServerProcess::spawn(
            &self.program,
            self.arguments.iter().map(String::as_str),
            &[],
            &self.log_file(),
        )?;
        let start = Instant::now();
        while !self.answers() {
            if !process.is_alive() || start.elapsed() > Duration::from_secs(10) {
                bail!("Valkey does not come up:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        *self.lock() = Some(process);
        Ok(())
    }

    /// Stops the process where it stands (SIGSTOP): connections stay open, nothing answers.
    ///
    /// # Errors
    /// Returns an error if the server does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// Returns an error if the server does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.lock();
        process
            .as_ref()
            .context("Valkey does not run")?
            .signal(signal)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ServerProcess>> {
        self.process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("valkey.sock")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("valkey.log")
    }

    /// Whether a PING gets an answer that is not `-LOADING`; a refusal for want of a password is one.
    fn answers(&self) -> bool {
        fn ping(mut stream: impl Read + Write) -> std::io::Result<bool> {
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 64];
            let length = stream.read(&mut answer)?;
            Ok(length > 0 && !answer.starts_with(b"-LOADING"))
        }
        let answered = if self.port == 0 {
            UnixStream::connect(self.socket()).and_then(ping)
        } else {
            TcpStream::connect(("127.0.0.1", self.port)).and_then(ping)
        };
        answered.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(valkey: &Valkey, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", valkey.port())).unwrap();
        stream.write_all(command.as_bytes()).unwrap();
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    #[test]
    fn data_survive_a_kill() {
        let valkey = Valkey::start().unwrap();
        assert_eq!(set(&valkey, "SET a 1\r\n"), "+OK\r\n");
        valkey.kill();
        assert!(TcpStream::connect(("127.0.0.1", valkey.port())).is_err());
        valkey.restart().unwrap();
        assert_eq!(set(&valkey, "GET a\r\n"), "$1\r\n1\r\n");
    }

    #[test]
    fn only_the_named_user_is_let_in() {
        let valkey = Valkey::builder().user("saker", "word").start().unwrap();
        assert!(set(&valkey, "PING\r\n").starts_with("-NOAUTH"));
        assert!(valkey.url(1).starts_with("redis://saker:word@127.0.0.1:"));
    }

    #[test]
    fn a_frozen_server_goes_on_when_thawed() {
        let valkey = Valkey::builder().unix().start().unwrap();
        valkey.freeze().unwrap();
        valkey.thaw().unwrap();
        assert!(valkey.answers());
        valkey.stop().unwrap();
    }
}
