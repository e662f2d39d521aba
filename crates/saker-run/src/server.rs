//! Starting and stopping Valkey, Triton, the updater and the gateway.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use saker_contract::ensemble::{ENSEMBLE, FUSED};
use saker_serving::control;
use saker_serving::files;
use saker_serving::installed;
use saker_serving::layout::Layout;
use saker_serving::releases::Repository;
use saker_serving::running::{Ports, Running};
use saker_serving::target::REDIS_URL;
use triton_client::Triton;

use crate::memory;

/// Maximum time for the start of a server.
const START: Duration = Duration::from_secs(120);
/// Time after the stop signal at which a server is killed.
const STOP: Duration = Duration::from_secs(30);
/// Interval at which the stop signal to a running store is repeated.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// glibc's variable for the size from which an allocation is mapped on its own and returned to the system.
const MMAP_THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";
/// Maximum time for Triton to answer the requests in progress before it is stopped.
const DRAIN: Duration = Duration::from_secs(5);
/// The models that clients call.
const ENSEMBLES: [&str; 2] = [ENSEMBLE, FUSED];

/// Stops a process: sends the signal, waits, and kills the process if it does not end. Removes its state file.
///
/// # Errors
/// Returns an error if the system refuses.
pub fn stop(running: &Running, layout: &Layout, name: &str) -> Result<()> {
    // Removed first, so that a `saker serve` in the foreground knows about the stop. A missing file is fine.
    let _ = fs::remove_file(Running::file(layout, name));
    if let Some(address) = running.http() {
        drain(layout, &address);
    }
    send(running, Signal::TERM)?;
    let start = Instant::now();
    let mut asked = start;
    while running.is_alive() && start.elapsed() < STOP {
        sleep(Duration::from_millis(50));
        // Valkey ignores a signal during the write of its first append-only file. For Triton a second signal would force the exit.
        if running.ports.is_none() && asked.elapsed() > ASK_AGAIN {
            send(running, Signal::TERM)?;
            asked = Instant::now();
        }
    }
    if running.is_alive() {
        tracing::warn!(
            "{} does not stop within {} s and is killed",
            running.program,
            STOP.as_secs()
        );
        send(running, Signal::KILL)?;
    }
    Ok(())
}

fn send(running: &Running, signal: Signal) -> Result<()> {
    let Some(id) = Pid::from_raw(running.id) else {
        return Ok(());
    };
    match kill_process(id, signal) {
        Err(error) if error != rustix::io::Errno::SRCH => Err(error)
            .with_context(|| format!("cannot stop {} (process {})", running.program, running.id)),
        _ => Ok(()),
    }
}

/// Unloads Triton's models, which waits for their requests. On a signal, Triton closes its clients' connections at once, and requests in
/// progress would lose their answers.
fn drain(layout: &Layout, address: &str) {
    let triton = control::client(layout, address, DRAIN);
    let start = Instant::now();
    let models = match triton.models() {
        Ok(models) => models,
        // Triton hangs or has ended, so there is nothing to wait for.
        Err(error) => return tracing::warn!("Triton is stopped without draining: {error}"),
    };
    let ready = models.iter().filter(|model| model.ready);
    let mut names: Vec<&str> = ready.map(|model| model.model.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    // Ensembles first: later requests are refused, and requests in progress still find their steps.
    names.sort_by_key(|name| !ENSEMBLES.contains(name));
    for name in &names {
        if let Err(error) = triton.unload(name) {
            return tracing::warn!("{name} is not unloaded before Triton stops: {error}");
        }
    }
    let unloaded = || {
        triton.models().is_ok_and(|models| {
            let mut ours = models
                .iter()
                .filter(|model| names.contains(&model.model.as_str()));
            ours.all(|model| model.reason == "unloaded")
        })
    };
    while !unloaded() && start.elapsed() < DRAIN {
        sleep(Duration::from_millis(20));
    }
}

/// A started process, and its name in `run/` and `logs/`.
pub struct Started {
    /// `valkey`, `triton`, `updater` or `gateway`.
    pub name: &'static str,
    /// The content of `run/<name>.json`.
    pub running: Running,
    /// `None` if another `saker serve` started the process.
    child: Option<Child>,
    log: PathBuf,
}

impl Started {
    /// Takes over a process of a `saker serve` that no longer runs.
    pub fn adopt(layout: &Layout, name: &'static str) -> Option<Self> {
        let running = Running::find(layout, name)?;
        Some(Self {
            name,
            running,
            child: None,
            log: layout.log(name),
        })
    }

    /// Starts a program in its own process group. A Ctrl-C on the terminal then reaches only `saker`, which stops the programs in order.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started.
    /// It cannot be started.
    pub fn spawn(
        layout: &Layout,
        name: &'static str,
        mut command: Command,
        ports: Option<Ports>,
    ) -> Result<Self> {
        let log = layout.log(name);
        for folder in [
            layout.run(),
            log.parent().unwrap_or(Path::new(".")).to_owned(),
        ] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        // The log of the previous process may say why it ended.
        let _ = fs::rename(&log, log.with_extension("log.1"));
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output
            .try_clone()
            .with_context(|| format!("cannot write {}", log.display()))?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let running = Running {
            id: child.id() as i32,
            program,
            ports,
        };
        let record = serde_json::to_string_pretty(&running)?;
        if let Err(error) = files::write(&Running::file(layout, name), record) {
            // Without its record, the process could not be stopped later.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error.context(format!("{name} is stopped again")));
        }
        Ok(Self {
            name,
            running,
            child: Some(child),
            log,
        })
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(Some(_)) | Err(_)),
            None => !self.running.is_alive(),
        }
    }

    /// Ends the process at once.
    ///
    /// # Errors
    /// Returns an error if the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        send(&self.running, Signal::KILL)?;
        if let Some(child) = &mut self.child {
            child.wait().context("cannot wait for a killed process")?;
        }
        Ok(())
    }

    /// Whether [`stop`] has stopped the process on purpose.
    pub fn was_stopped(&self, layout: &Layout) -> bool {
        !Running::file(layout, self.name).exists()
    }

    /// Waits until `ready`. Stops the process if it takes too long, or when `interrupted`.
    ///
    /// # Errors
    /// Returns an error if the process ended, took too long, or was interrupted.
    pub fn wait(
        &mut self,
        layout: &Layout,
        interrupted: &AtomicBool,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            if interrupted.load(Ordering::Relaxed) {
                self.stop(layout)?;
                bail!("interrupted while {} started", self.name);
            }
            if self.has_ended() {
                let _ = fs::remove_file(Running::file(layout, self.name));
                bail!(
                    "{} did not start:\n{}\nthe whole log is {}",
                    self.name,
                    self.complaints(),
                    self.log.display()
                );
            }
            if ready() {
                return Ok(());
            }
            if start.elapsed() > START {
                self.stop(layout)?;
                bail!(
                    "{} was not ready within {} s; its log is {}",
                    self.name,
                    START.as_secs(),
                    self.log.display()
                );
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Stops the process.
    ///
    /// # Errors
    /// Returns an error as [`stop`] does.
    pub fn stop(&mut self, layout: &Layout) -> Result<()> {
        let id = self.running.clone();
        let Some(child) = &mut self.child else {
            return stop(&id, layout, self.name);
        };
        // A second thread waits for the child; otherwise the ended process would stay a zombie and seem to run.
        std::thread::scope(|scope| {
            scope.spawn(|| child.wait());
            stop(&id, layout, self.name)
        })
    }

    /// The lines of the log that explain the failure, or its last lines.
    pub fn complaints(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // Without a GPU, Triton logs these on every start.
        let noise = ["Cuda", "CUDA", "NVML", "DCGM"];
        let wrong = |line: &&str| {
            let says = ["error:", "Address already in use"]
                .iter()
                .any(|words| line.contains(words));
            (line.starts_with('E') || says) && !noise.iter().any(|word| line.contains(word))
        };
        let mut lines: Vec<&str> = log.lines().filter(wrong).collect();
        if lines.is_empty() {
            lines = log.lines().collect();
        }
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// Whether a server listens at `host:port`.
pub fn listens(address: &str) -> bool {
    let Ok(mut addresses) = address.to_socket_addrs() else {
        return false;
    };
    addresses.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
}

/// The `host:port` of a store's URL, and whether it is this machine.
pub fn address(redis_url: &str) -> (String, bool) {
    let rest = redis_url
        .split_once("://")
        .map_or(redis_url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let rest = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, port),
        _ => (rest, "6379"),
    };
    (
        format!("{host}:{port}"),
        matches!(host, "127.0.0.1" | "localhost" | "[::1]"),
    )
}

/// Ensures that the store answers. Starts a Valkey if the address is on this machine and no server listens there.
///
/// # Errors
/// Returns an error if Valkey cannot be started, or if the store is on another machine and does not answer.
pub fn store(
    layout: &Layout,
    redis_url: &str,
    interrupted: &AtomicBool,
) -> Result<Option<Started>> {
    let (address, local) = address(redis_url);
    if listens(&address) {
        return Ok(None);
    }
    let with_login = redis_url.contains('@') || !redis_url.starts_with("redis://");
    if !local || with_login {
        bail!("no store answers at {address}; start it, or give another address with --redis-url");
    }
    let folder = layout.valkey();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let port = address.rsplit(':').next().unwrap_or("6379");
    let mut command = Command::new(installed::valkey_server()?);
    // Valkey writes to the disk within a second, so an acknowledged event survives a crash. With appending enabled at its start, Valkey
    // reads only the append-only file. If that file does not exist yet, appending is enabled later.
    let appends = folder.join("appendonlydir").exists();
    let append = if appends { "yes" } else { "no" };
    command.args(["--port", port, "--bind", "127.0.0.1", "--save", "60 1"]);
    command.args(["--appendonly", append, "--appendfsync", "everysec"]);
    // Valkey must not evict keys. When it is full, it refuses writes, which the gateway and the updater handle.
    command.args(["--maxmemory", &memory::of_store()?.to_string()]);
    command.args(["--maxmemory-policy", "noeviction"]);
    command.arg("--dir").arg(std::path::absolute(&folder)?);
    let mut started = Started::spawn(layout, "valkey", command, None)?;
    // Valkey listens before it has read its files, and answers LOADING in the meantime; requests would get defaults.
    let settings = saker_store::Settings::parse(redis_url, None)?;
    started.wait(layout, interrupted, || {
        saker_store::Connection::open(&settings).is_ok()
    })?;
    if !appends {
        let mut connection = saker_store::Connection::open(&settings)?;
        let mut append = saker_store::Pipeline::new();
        append.keyless(|cmd| {
            cmd.arg("CONFIG").arg("SET").arg("appendonly").arg("yes");
        });
        connection.run(&append, START)?;
    }
    Ok(Some(started))
}

/// The ensembles of a repository.
pub fn ensembles(repository: &Path) -> Vec<&'static str> {
    Repository::open(repository).map_or(vec![ENSEMBLE], |it| it.ensembles())
}

/// Starts Triton on the pipeline's repository, with `more` arguments, and waits until the ensembles and all steps are ready. If the
/// repository lacks the store's address, the models read it from the environment.
///
/// # Errors
/// Returns an error if Triton, the backends or the repository are missing, if a port is taken, or if a model does not load.
pub fn triton(
    layout: &Layout,
    repository: &Path,
    host: &str,
    ports: Ports,
    more: &[String],
    (redis_url, interrupted): (&str, &AtomicBool),
) -> Result<Started> {
    for port in [ports.http, ports.grpc, ports.metrics] {
        if listens(&format!("127.0.0.1:{port}")) {
            bail!(
                "port {port} is taken; stop what listens there (`saker stop`?), or choose others, see `saker serve --help`"
            );
        }
    }
    let program = installed::tritonserver()?;
    let mut command = Command::new(&program);
    command.arg(format!(
        "--model-repository={}",
        std::path::absolute(repository)?.display()
    ));
    command.arg(format!(
        "--backend-directory={}",
        installed::backends()?.display()
    ));
    command.args([
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        // Otherwise the server reports itself as unready while it loads another release.
        "--strict-readiness=false",
    ]);
    let ensembles = ensembles(repository);
    for ensemble in &ensembles {
        command.arg(format!("--load-model={ensemble}"));
    }
    for (service, port) in [
        ("http", ports.http),
        ("grpc", ports.grpc),
        ("metrics", ports.metrics),
    ] {
        command.args([
            format!("--{service}-address={host}"),
            format!("--{service}-port={port}"),
        ]);
    }
    command.args(control::restrictions(&control::new_key(layout)?));
    command.arg(format!("--exit-timeout-secs={}", STOP.as_secs() / 3));
    command.args(more);
    if let Some(library) = installed::onnxruntime() {
        command.env("ORT_DYLIB_PATH", library);
    }
    command.env(REDIS_URL, redis_url);
    // The default threshold grows up to 32 MiB; the tensors of a request with many users would then stay in the heap forever.
    if std::env::var_os(MMAP_THRESHOLD).is_none() {
        command.env(MMAP_THRESHOLD, (1 << 20).to_string());
    }
    let mut started = Started::spawn(layout, "triton", command, Some(ports))?;
    let client = Triton::new(&format!("127.0.0.1:{}", ports.http));
    started.wait(layout, interrupted, || {
        client.is_ready() && ensembles.iter().all(|name| client.is_model_ready(name))
    })?;
    Ok(started)
}

/// Starts `saker <name> <arguments>` in this environment, and waits until `ready`.
///
/// # Errors
/// Returns an error if the command ended or took too long.
pub fn command(
    layout: &Layout,
    name: &'static str,
    arguments: &[OsString],
    environment: &[(&str, OsString)],
    interrupted: &AtomicBool,
    ready: impl FnMut() -> bool,
) -> Result<Started> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg(name).args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let mut started = Started::spawn(layout, name, command, None)?;
    started.wait(layout, interrupted, ready)?;
    Ok(started)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_come_out_of_urls() {
        assert_eq!(
            address("redis://127.0.0.1:6380"),
            ("127.0.0.1:6380".to_owned(), true)
        );
        assert_eq!(
            address("redis://localhost/0"),
            ("localhost:6379".to_owned(), true)
        );
        assert_eq!(
            address("rediss://me:pass@word@store.shop:7000"),
            ("store.shop:7000".to_owned(), false)
        );
    }
}
