//! A real cluster of three Valkeys for one test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::valkey::Valkey;

/// The slots of each master.
const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three masters that share the slots; they are killed on drop.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Valkey>,
}

impl Cluster {
    /// Starts the cluster and waits until every node takes commands.
    ///
    /// # Errors
    /// Returns an error if Valkey is not installed (the message says how to get it), or the cluster does not form.
    pub fn start() -> Result<Self> {
        let node = || {
            Valkey::builder()
                .arguments(&["--cluster-enabled", "yes"])
                .start()
        };
        let nodes = (0..SLOTS.len())
            .map(|_| node())
            .collect::<Result<Vec<_>>>()?;
        for (index, (node, (first, last))) in nodes.iter().zip(SLOTS).enumerate() {
            ask(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1))?;
            ask(node, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"))?;
            if index > 0 {
                ask(node, &format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port()))?;
            }
        }
        let start = Instant::now();
        while !nodes.iter().all(is_formed) {
            if start.elapsed() > Duration::from_secs(30) {
                bail!("the cluster does not form within 30 s:\n{}", nodes[0].log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { nodes })
    }

    /// The URL with the addresses of all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The masters, in the order of their slots.
    #[must_use]
    pub fn nodes(&self) -> &[Valkey] {
        &self.nodes
    }
}

/// Whether this node knows who serves every slot.
fn is_formed(node: &Valkey) -> bool {
    ask(node, "CLUSTER INFO").is_ok_and(|info| {
        info.contains("cluster_state:ok")
            && info.contains(&format!("cluster_known_nodes:{}", SLOTS.len()))
            && info.contains("cluster_slots_ok:16384")
    })
}

/// Sends one command in the protocol's inline form, and returns the reply's text.
fn ask(node: &Valkey, command: &str) -> Result<String> {
    let stream = TcpStream::connect(("127.0.0.1", node.port()))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut stream = BufReader::new(stream);
    stream
        .get_mut()
        .write_all(format!("{command}\r\n").as_bytes())?;
    let mut first = String::new();
    stream.read_line(&mut first)?;
    let line = first.trim_end();
    match line.split_at_checked(1) {
        Some(("+", status)) => Ok(status.to_owned()),
        Some(("$", length)) => {
            let length: usize = length.parse().context("the reply's length")?;
            let mut text = vec![0; length];
            stream.read_exact(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        _ => bail!("{command}: {line}"),
    }
}
