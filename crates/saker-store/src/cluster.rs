//! The masters of a cluster, with one connection each, and the hash slots that they serve.
//!
//! All connections exist before a request arrives. If a slot has moved to a known node, the command follows it. The connection then counts
//! as incomplete, and the background thread makes a new one from the new topology.

use std::time::{Duration, Instant};

use redis::Value;

use crate::node::{CommandResult, Node};
use crate::pipeline::{SLOTS, Unit};
use crate::settings::Address;
use crate::{Pipeline, Settings, StoreError};

/// Extra time for replies of other nodes, which are already on their way, after one node has used up the deadline.
const GRACE: Duration = Duration::from_millis(1);

pub(crate) struct Cluster {
    members: Vec<Member>,
    /// Slot → index in `members`; `u16::MAX` means that no node serves the slot.
    owner: Box<[u16]>,
    complete: bool,
}

struct Member {
    address: Address,
    /// `None` if the node could not be reached or has failed since.
    node: Option<Node>,
    /// The units sent to the node in the current call.
    sent: Vec<Sent>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Sent {
    Asking,
    Unit {
        /// Index of the unit's reply.
        position: usize,
        /// Number of replies to the unit.
        replies: usize,
    },
}

impl Cluster {
    pub(crate) fn open(
        settings: &Settings,
        seeds: &[Address],
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let mut last = StoreError::Settings("no host".into());
        for seed in seeds {
            match Self::open_from(settings, seed, deadline) {
                Ok(cluster) => return Ok(cluster),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open_from(
        settings: &Settings,
        seed: &Address,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let mut node = Node::open(settings, seed, deadline)?;
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        let ranges = read_slots(&node.call(&cmd, deadline)?, seed)?;

        let mut members: Vec<Member> = Vec::new();
        let mut owner = vec![u16::MAX; usize::from(SLOTS)].into_boxed_slice();
        for (start, end, address) in ranges {
            let known = members.iter().position(|member| member.address == address);
            let index = known.unwrap_or_else(|| {
                let node = Node::open(settings, &address, deadline).ok();
                members.push(Member {
                    address,
                    node,
                    sent: Vec::new(),
                    bytes: Vec::new(),
                });
                members.len() - 1
            });
            let slots = owner.iter_mut().take(usize::from(end) + 1);
            slots
                .skip(usize::from(start))
                .for_each(|slot| *slot = index as u16);
        }
        if members.iter().all(|member| member.node.is_none()) {
            return Err(StoreError::Io(
                "no master of the cluster can be reached".into(),
            ));
        }
        let complete =
            members.iter().all(|member| member.node.is_some()) && !owner.contains(&u16::MAX);
        Ok(Self {
            members,
            owner,
            complete,
        })
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(crate) fn nodes(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn node(&mut self, index: usize) -> Result<&mut Node, StoreError> {
        let count = self.members.len();
        let member = self.members.get_mut(index).ok_or_else(|| {
            StoreError::Io(format!(
                "the cluster has {count} nodes, so node {index} does not exist"
            ))
        })?;
        member.node()
    }

    pub(crate) fn ping(&mut self, deadline: Instant) -> Result<(), StoreError> {
        for member in &mut self.members {
            member.node()?.ping(deadline)?;
        }
        Ok(())
    }

    pub(crate) fn run(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        replies: &mut Vec<CommandResult>,
    ) -> Result<(), StoreError> {
        replies.resize_with(pipeline.len(), || {
            Err(StoreError::Io("no node serves this key's slot".into()))
        });
        let any = self.members.iter().position(|member| member.node.is_some());
        for (position, unit) in pipeline.units().iter().enumerate() {
            let index = match unit.slot {
                Some(slot) => self.owner.get(usize::from(slot)).copied().map(usize::from),
                None => any,
            };
            if let Some(member) = index.and_then(|index| self.members.get_mut(index)) {
                member.add(pipeline, position, unit)?;
            } else {
                self.complete = false;
            }
        }
        self.exchange(deadline, replies);
        self.follow(pipeline, deadline, replies)?;
        if self.members.iter().all(|member| member.node.is_none()) {
            return Err(StoreError::Io(
                "the connections to all masters of the cluster are lost".into(),
            ));
        }
        Ok(())
    }

    /// Sends the waiting units of each member and reads the replies.
    fn exchange(&mut self, deadline: Instant, replies: &mut [CommandResult]) {
        for member in &mut self.members {
            if member.sent.is_empty() {
                continue;
            }
            let lost = match &mut member.node {
                Some(node) => node.send(&member.bytes, deadline).err(),
                None => Some(unreachable_member(&member.address)),
            };
            member.bytes.clear();
            if let Some(error) = lost {
                member.lose(error, replies);
                self.complete = false;
            }
        }
        for member in &mut self.members {
            if let Some(node) = &mut member.node {
                node.extend(deadline.max(Instant::now() + GRACE));
            }
            if let Err(error) = member.receive(replies) {
                member.lose(error, replies);
                self.complete = false;
            }
            member.sent.clear();
        }
    }

    /// Resends commands whose slot has moved or is moving.
    fn follow(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        replies: &mut [CommandResult],
    ) -> Result<(), StoreError> {
        let mut moved = false;
        for (position, (unit, reply)) in pipeline.units().iter().zip(&*replies).enumerate() {
            let Err(StoreError::Server(text)) = reply else {
                continue;
            };
            let Some((asking, slot, address)) = read_redirection(text) else {
                continue;
            };
            let mut members = self.members.iter_mut().enumerate();
            let Some((index, member)) = members.find(|(_, member)| member.address == address)
            else {
                self.complete = false;
                continue;
            };
            // ASK applies to this command only; MOVED is permanent.
            if !asking {
                if let Some(owner) = self.owner.get_mut(usize::from(slot)) {
                    *owner = index as u16;
                }
                self.complete = false;
            }
            if asking {
                // ASK cannot redirect a whole transaction, so it stays an error of that unit.
                if unit.replies > 1 {
                    continue;
                }
                member.bytes.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
                member.sent.push(Sent::Asking);
            }
            member.add(pipeline, position, unit)?;
            moved = true;
        }
        if moved {
            self.exchange(deadline, replies);
        }
        Ok(())
    }
}

impl Member {
    fn node(&mut self) -> Result<&mut Node, StoreError> {
        self.node
            .as_mut()
            .ok_or_else(|| unreachable_member(&self.address))
    }

    /// Adds a unit of the pipeline to those to be sent; its reply goes to `position`.
    fn add(&mut self, pipeline: &Pipeline, position: usize, unit: &Unit) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(pipeline.unit_bytes(unit)?);
        self.sent.push(Sent::Unit {
            position,
            replies: unit.replies,
        });
        Ok(())
    }

    fn receive(&mut self, replies: &mut [CommandResult]) -> Result<(), StoreError> {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        for sent in &self.sent {
            match *sent {
                Sent::Asking => {
                    let _asking = node.receive_unit(1)?;
                }
                Sent::Unit {
                    position,
                    replies: count,
                } => {
                    let received = node.receive_unit(count)?;
                    let places = replies.len();
                    *replies.get_mut(position).ok_or_else(|| {
                        StoreError::Protocol(format!("reply {position} to {places} commands"))
                    })? = received;
                }
            }
        }
        Ok(())
    }

    /// Drops the connection. A later reply on it would be read as the reply to another command.
    fn lose(&mut self, error: StoreError, replies: &mut [CommandResult]) {
        self.node = None;
        for sent in self.sent.drain(..) {
            // A unit without a position has no reply.
            if let Sent::Unit { position, .. } = sent
                && let Some(reply) = replies.get_mut(position)
            {
                *reply = Err(error.clone());
            }
        }
    }
}

fn unreachable_member(address: &Address) -> StoreError {
    StoreError::Io(match address {
        Address::Tcp { host, port } => format!("cluster node {host}:{port} cannot be reached"),
        Address::Unix(path) => format!("cluster node {} cannot be reached", path.display()),
    })
}

/// `(first slot, last slot, master)` of each range in the reply to CLUSTER SLOTS.
fn read_slots(reply: &Value, seed: &Address) -> Result<Vec<(u16, u16, Address)>, StoreError> {
    let refuse = || StoreError::Protocol("CLUSTER SLOTS: not a list of slot ranges".into());
    let Value::Array(ranges) = reply else {
        return Err(refuse());
    };
    ranges
        .iter()
        .map(|range| {
            let Value::Array(range) = range else {
                return Err(refuse());
            };
            let [Value::Int(start), Value::Int(end), Value::Array(master), ..] = range.as_slice()
            else {
                return Err(refuse());
            };
            let [host, Value::Int(port), ..] = master.as_slice() else {
                return Err(refuse());
            };
            let host = match host {
                Value::BulkString(host) => String::from_utf8_lossy(host).into_owned(),
                _ => String::new(),
            };
            // A node that does not know its own host name omits it: it is the node that was asked.
            let host = match (host.as_str(), seed) {
                ("" | "?", Address::Tcp { host, .. }) => host.clone(),
                _ => host,
            };
            let slots = (
                u16::try_from(*start),
                u16::try_from(*end),
                u16::try_from(*port),
            );
            let (Ok(start), Ok(end), Ok(port)) = slots else {
                return Err(refuse());
            };
            if start > end || end >= SLOTS {
                return Err(refuse());
            }
            Ok((start, end, Address::Tcp { host, port }))
        })
        .collect()
}

/// Parses `MOVED 3999 host:port` and `ASK 3999 host:port`. Returns whether it is ASK, the slot and the address.
fn read_redirection(text: &str) -> Option<(bool, u16, Address)> {
    let mut words = text.split(' ');
    let asking = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    Some((
        asking,
        slot,
        Address::Tcp {
            host: host.to_owned(),
            port: port.parse().ok()?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_read() {
        let address = Address::Tcp {
            host: "10.0.0.7".into(),
            port: 6381,
        };
        assert_eq!(
            read_redirection("MOVED 3999 10.0.0.7:6381"),
            Some((false, 3999, address.clone()))
        );
        assert_eq!(
            read_redirection("ASK 3999 10.0.0.7:6381"),
            Some((true, 3999, address))
        );
        assert_eq!(read_redirection("WRONGTYPE Operation against a key"), None);
        assert_eq!(read_redirection("MOVED"), None);
    }

    #[test]
    fn slot_ranges_out_of_bounds_are_refused() {
        let seed = Address::Tcp {
            host: "seed".into(),
            port: 1,
        };
        let range = |start, end| {
            let master = Value::Array(vec![Value::Nil, Value::Int(7000)]);
            Value::Array(vec![Value::Array(vec![
                Value::Int(start),
                Value::Int(end),
                master,
            ])])
        };
        let read = read_slots(&range(0, 16_383), &seed).unwrap();
        assert_eq!(
            read,
            [(
                0,
                16_383,
                Address::Tcp {
                    host: "seed".into(),
                    port: 7000
                }
            )]
        );
        assert!(read_slots(&range(0, 16_384), &seed).is_err());
        assert!(read_slots(&range(-1, 3), &seed).is_err());
        assert!(read_slots(&Value::Okay, &seed).is_err());
    }
}
