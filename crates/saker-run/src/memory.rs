//! The memory limit of the store.

use std::fs;

use anyhow::{Context, Result, bail};

/// The environment variable that limits the memory of a Valkey that Saker starts.
const VARIABLE: &str = "SAKER_STORE_MEMORY";
/// Minimum that holds a shop.
const LEAST: u64 = 16 << 20;

/// Memory limit in bytes of a Valkey that Saker starts: `SAKER_STORE_MEMORY`, or half of the memory of this machine (or container).
///
/// # Errors
/// Returns an error if the variable is not a size, or if the machine's memory is unknown.
pub fn of_store() -> Result<u64> {
    if let Ok(text) = std::env::var(VARIABLE) {
        return parse(&text);
    }
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    let machine = machine(&meminfo).with_context(|| {
        format!("/proc/meminfo has no line MemTotal; set {VARIABLE}, such as {VARIABLE}=4gb")
    })?;
    let container = container.trim().parse().unwrap_or(u64::MAX);
    Ok(machine.min(container) / 2)
}

fn machine(meminfo: &str) -> Option<u64> {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Parses a size such as `512mb` or `4gb`; returns bytes.
fn parse(text: &str) -> Result<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let unit = [("kb", 10), ("mb", 20), ("gb", 30), ("tb", 40), ("", 0)]
        .into_iter()
        .find_map(|(unit, shift)| Some((lower.strip_suffix(unit)?, shift)));
    let bytes = unit.and_then(|(digits, shift)| {
        let count: u64 = digits.trim().parse().ok()?;
        count.checked_mul(1 << shift)
    });
    match bytes {
        Some(bytes) if bytes >= LEAST => Ok(bytes),
        _ => {
            bail!("{VARIABLE} is '{text}'; accepted: a size of 16mb or more, such as 512mb or 4gb")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_named() {
        assert_eq!(parse("512mb").unwrap(), 512 << 20);
        assert_eq!(parse(" 4 GB ").unwrap(), 4 << 30);
        assert_eq!(parse("33554432").unwrap(), 32 << 20);
        for wrong in ["", "4", "mb", "-1gb", "1.5gb", "99999999999tb", "4g b"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(VARIABLE), "{error}");
        }
    }

    #[test]
    fn the_machines_memory_is_read() {
        let meminfo = "MemTotal:       16384256 kB\nMemFree:        1 kB\n";
        assert_eq!(machine(meminfo), Some(16_384_256 * 1024));
        assert_eq!(machine("MemFree: 1 kB"), None);
    }

    #[test]
    fn a_valkey_that_we_start_has_a_bound_and_forgets_nothing() {
        use std::sync::atomic::AtomicBool;
        use std::time::{Duration, Instant};

        use saker_store::{Connection, Pipeline, Reply, Settings};
        let folder = tempfile::tempdir().unwrap();
        let layout = saker_serving::layout::Layout::new(folder.path(), "shop");
        let url = format!(
            "redis://127.0.0.1:{}",
            triton_testing::ports::free_port().unwrap()
        );
        let started = crate::server::store(&layout, &url, &AtomicBool::new(false)).unwrap();
        let mut started = started.expect("nobody listens there");
        let told = Connection::open(&Settings::parse(&url, None).unwrap()).map(|mut connection| {
            let mut ask = |words: [&str; 3]| {
                let mut pipeline = Pipeline::new();
                pipeline.keyless(|cmd| {
                    words
                        .iter()
                        .filter(|word| !word.is_empty())
                        .for_each(|word| {
                            cmd.arg(*word);
                        });
                });
                connection.run(&pipeline, Duration::from_secs(5))
            };
            // Valkey does not stop while it writes its first append-only file.
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(20) {
                let info = ask(["INFO", "persistence", ""]);
                let Ok([Reply::BulkString(text)]) = info.as_deref() else {
                    break;
                };
                let text = String::from_utf8_lossy(text);
                let is_idle = |name: &str| text.contains(&format!("aof_rewrite_{name}:0"));
                if is_idle("in_progress") && is_idle("scheduled") {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            ["maxmemory", "maxmemory-policy"].map(|name| ask(["CONFIG", "GET", name]))
        });
        started.stop(&layout).unwrap();
        let bound = of_store().unwrap().to_string();
        for (told, value) in told
            .unwrap()
            .into_iter()
            .zip([bound.as_str(), "noeviction"])
        {
            let Reply::Array(words) = told.unwrap().remove(0) else {
                panic!("no array");
            };
            assert_eq!(words[1], Reply::BulkString(value.into()));
        }
    }
}
