//! Server programs that never outlive the test which starts them.
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//! use triton_testing::process::{ServerProcess, Signal};
//!
//! # fn main() -> anyhow::Result<()> {
//! let program = Path::new("/usr/bin/valkey-server");
//! let mut server = ServerProcess::spawn(program, ["--port", "7000"], &[], Path::new("valkey.log"))?;
//! server.signal(Signal::TERM)?;
//! server.wait(Duration::from_secs(10))?;
//! # Ok(())
//! # }
//! ```

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

/// Runs a server and prints its process id to standard output; both write to standard error, the log. The server is killed when the pipe
/// from this process closes: statics are not dropped at exit, and a killed test drops nothing.
const GUARD: &str = r#"
exec 3<&0 4>&1 1>&2
"$@" </dev/null 3<&- 4>&- &
server=$!
echo "$server" >&4
exec 4>&-
{ cat <&3 >/dev/null; kill -KILL "$server"; } 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server" 2>/dev/null
status=$?
kill "$watcher"
exit "$status"
"#;

/// A running server in its own process group, with its output in a log file.
///
/// It is killed on drop, and when this process ends in whatever way.
#[derive(Debug)]
pub struct ServerProcess {
    guard: Child,
    server: Pid,
    /// Closed on drop or at this process's end, which ends the server.
    _lifeline: ChildStdin,
}

impl ServerProcess {
    /// Starts `program` with `arguments`, standard output and error appended to `log`.
    ///
    /// `environment` adds variables to those of this process. A program without a `/` in its name is searched in `PATH`; a missing one is
    /// a line in the log and a server that has ended.
    ///
    /// # Errors
    /// Returns an error if the log cannot be opened, or `/bin/sh` cannot be started.
    pub fn spawn<'a>(
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "guard"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start '{}'", program.display()))?;
        let lifeline = guard.stdin.take().context("no pipe to the guard")?;
        let stdout = guard.stdout.take().context("no pipe from the guard")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let server = line
            .trim()
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| {
                format!(
                    "the guard of '{}' reported no process id",
                    program.display()
                )
            })?;
        Ok(Self {
            guard,
            server,
            _lifeline: lifeline,
        })
    }

    /// Whether the server runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
    }

    /// The server's process id.
    pub fn id(&self) -> i32 {
        self.server.as_raw_pid()
    }

    /// Sends the server a signal.
    ///
    /// # Errors
    /// Returns an error if the server has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.server, signal).context("cannot signal the server")
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Errors
    /// Returns an error if the server still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > limit {
                bail!("the server still runs after {} s", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Kills the server and the rest of its process group; the server has gone when this returns.
    pub fn kill(&mut self) {
        // The guard ends after the server's end. If the whole group were killed, the guard could not detect it.
        if kill_process(self.server, Signal::KILL).is_ok() {
            let _ = self.wait(Duration::from_secs(5));
        }
        let _ = kill_process_group(Pid::from_child(&self.guard), Signal::KILL);
        let _ = self.guard.wait();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if self.is_alive() {
            self.kill();
        }
    }
}
