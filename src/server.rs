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
use saker_serving::control;
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_serving::names::{ENSEMBLE, FUSED};
use saker_serving::releases::Repository;
use saker_serving::running::{Ports, Running};
use saker_serving::target::REDIS_URL;

use crate::memory;
use crate::runtime;
use triton_client::Triton;

/// How long a server may take to get ready.
const START: Duration = Duration::from_secs(120);
/// How long a server may take to finish what it is doing before it is killed.
const STOP: Duration = Duration::from_secs(30);
/// After how long a store that still runs is asked to stop once more.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// glibc's variable: from which size on memory is asked of the system, and given back to it, by itself.
const MMAP_THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";
/// How long Triton may take to answer the requests under way before it is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// What clients ask.
const ENSEMBLES: [&str; 2] = [ENSEMBLE, FUSED];

/// Asks it to stop, waits, and kills it when it does not. The file about it goes.
///
/// # Errors
/// The system does not let us.
pub fn stop(running: &Running, layout: &Layout, name: &str) -> Result<()> {
    // First, so that a `saker serve` in the foreground knows that it was told to stop. Gone already is as good.
    let _ = fs::remove_file(Running::file(layout, name));
    if let Some(address) = running.http() {
        drain(layout, &address);
    }
    send(running, Signal::TERM)?;
    let start = Instant::now();
    let mut asked = start;
    while running.is_alive() && start.elapsed() < STOP {
        sleep(Duration::from_millis(50));
        // Valkey forgets a signal that comes while it writes its first append-only file. Triton takes a second one for haste.
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

/// Unloads Triton's models, which waits for the requests that they are answering: on a signal, Triton closes its clients'
/// connections at once, and each loses the answer that it waits for.
fn drain(layout: &Layout, address: &str) {
    let triton = control::client(layout, address, DRAIN);
    let start = Instant::now();
    let models = match triton.models() {
        Ok(models) => models,
        // It hangs, or is gone: there is nothing to wait for.
        Err(error) => return tracing::warn!("Triton is stopped without draining: {error}"),
    };
    let ready = models.iter().filter(|model| model.ready);
    let mut names: Vec<&str> = ready.map(|model| model.model.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    // Ensembles first: what starts after this is refused, and what has started still finds its steps.
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

/// A started process and the name it is known by in `run/` and `logs/`.
pub struct Started {
    /// `valkey`, `triton`, `updater` or `gateway`.
    pub name: &'static str,
    /// What `run/<name>.json` says.
    pub running: Running,
    /// `None` where another `saker serve` started it.
    child: Option<Child>,
    log: PathBuf,
}

impl Started {
    /// Takes over a process that a `saker serve` started which runs no more.
    pub fn adopt(layout: &Layout, name: &'static str) -> Option<Self> {
        let running = Running::find(layout, name)?;
        Some(Self {
            name,
            running,
            child: None,
            log: layout.log(name),
        })
    }

    /// Starts a program in a process group of its own, so that a Ctrl-C on our terminal reaches us alone and we stop it in
    /// order.
    ///
    /// # Errors
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
        // What another one wrote before it ended may say why it did.
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
            // Without its record nobody could stop it later.
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

    /// Whether somebody has stopped it on purpose, by [`stop`].
    pub fn was_stopped(&self, layout: &Layout) -> bool {
        !Running::file(layout, self.name).exists()
    }

    /// Waits until `ready`; stops the process when it takes too long, or when `interrupted`.
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
    /// As [`stop`].
    pub fn stop(&mut self, layout: &Layout) -> Result<()> {
        let id = self.running.clone();
        let Some(child) = &mut self.child else {
            return stop(&id, layout, self.name);
        };
        // Waited for beside, or the ended process would stay as our zombie and look alive.
        std::thread::scope(|scope| {
            scope.spawn(|| child.wait());
            stop(&id, layout, self.name)
        })
    }

    /// The lines of the log that say what went wrong, or its last ones.
    pub fn complaints(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // A Triton without a GPU complains of that on every start.
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

/// Makes sure that the store answers: starts a Valkey when its address is this machine's and nobody listens there.
///
/// # Errors
/// It cannot be started, or is elsewhere and does not answer.
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
    let mut command = Command::new(runtime::valkey_server()?);
    // Every write is on the disk within a second, so that an event that was acknowledged outlives a crash. A Valkey that is told
    // to append at its start reads nothing but the file that it appends to: where there is none yet, it is told later.
    let appends = folder.join("appendonlydir").exists();
    let append = if appends { "yes" } else { "no" };
    command.args(["--port", port, "--bind", "127.0.0.1", "--save", "60 1"]);
    command.args(["--appendonly", append, "--appendfsync", "everysec"]);
    // Nothing of it may be forgotten: when it is full it refuses to write, which the gateway and the updater answer for.
    command.args(["--maxmemory", &memory::of_store()?.to_string()]);
    command.args(["--maxmemory-policy", "noeviction"]);
    command.arg("--dir").arg(std::path::absolute(&folder)?);
    let mut started = Started::spawn(layout, "valkey", command, None)?;
    // It listens before it has read its files back, and answers LOADING meanwhile; a request then gets defaults.
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

/// Starts Triton on the pipeline's repository, with some `more` arguments, and waits until the ensemble and all its steps are ready. The models find the
/// store's address in the environment where the repository does not hold it.
///
/// # Errors
/// Triton, the backends or the repository are missing, a port is taken, or a model does not load.
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
    let program = runtime::tritonserver()?;
    let mut command = Command::new(&program);
    command.arg(format!(
        "--model-repository={}",
        std::path::absolute(repository)?.display()
    ));
    command.arg(format!(
        "--backend-directory={}",
        runtime::backends()?.display()
    ));
    command.args([
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        // Otherwise the server calls itself unready while a release is loaded beside the one that serves.
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
    if let Some(library) = runtime::onnxruntime() {
        command.env("ORT_DYLIB_PATH", library);
    }
    command.env(REDIS_URL, redis_url);
    // With the default, which grows up to 32 MiB, the tensors of a request with many users stay in the heap for ever.
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

/// Starts another command of ours, `saker <name> <arguments>`, in this environment, and waits until `ready`.
///
/// # Errors
/// It ended, or it took too long.
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
