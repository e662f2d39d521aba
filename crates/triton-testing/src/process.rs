//! Child processes that never outlive the test.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

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
#[derive(Debug)]
pub(crate) struct Server {
    guard: Child,
    server: Pid,
    /// Closed on drop or at this process's end, which ends the server.
    _lifeline: ChildStdin,
}

impl Server {
    /// Starts `program` with `arguments`, standard output and error appended to `log`.
    pub(crate) fn spawn<'a>(
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
            .with_context(|| format!("the guard of '{}' told no id", program.display()))?;
        Ok(Self {
            guard,
            server,
            _lifeline: lifeline,
        })
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
    }

    pub(crate) fn id(&self) -> i32 {
        self.server.as_raw_pid()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.server, signal).context("cannot signal the server")
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<()> {
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
    pub(crate) fn kill(&mut self) {
        // The guard ends after the server's end. If the whole group were killed, the guard could not detect it.
        if kill_process(self.server, Signal::KILL).is_ok() {
            let _ = self.wait(Duration::from_secs(5));
        }
        let _ = kill_process_group(Pid::from_child(&self.guard), Signal::KILL);
        let _ = self.guard.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_alive() {
            self.kill();
        }
    }
}
