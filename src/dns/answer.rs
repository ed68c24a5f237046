//! One query and its answer: what can be said at once, and what must be asked elsewhere.

use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use rand::seq::SliceRandom;

use super::remembered::Remembered;
use super::upstream::{Transport, Upstreams};
use super::view::View;
use super::zone::{Lookup, Zone};

/// What fits into a datagram when the client says nothing (RFC 1035), and at most (the DNS flag day of 2020).
const SMALLEST_PAYLOAD: u16 = 512;
const LARGEST_PAYLOAD: u16 = 1232;
/// Length of the fixed header.
const HEADER: usize = 12;
/// Aliases of the cluster that may lead to one another.
const MOST_ALIASES: usize = 8;

/// Answers queries from the zone and forwards the rest.
pub(super) struct Responder {
    zone: Zone,
    view: View,
    upstreams: Upstreams,
    remembered: Remembered,
}

/// What to do with a query.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Send this.
    Answer(Vec<u8>),
    /// Not worth an answer: no query, or no DNS at all.
    Drop,
    /// Ask upstream with the client's own words.
    Forward { query: Box<Message> },
    /// Look for the target of an alias, in the cluster or upstream, and put the alias in front.
    Follow { query: Box<Message>, alias: Box<Record>, target: Name },
}

impl Responder {
    pub(super) fn new(zone: Zone, view: View, upstreams: Upstreams) -> Self {
        Responder { zone, view, upstreams, remembered: Remembered::default() }
    }

    /// Decides without waiting for anything.
    pub(super) fn decide(&self, bytes: &[u8], transport: Transport) -> Verdict {
        let query = match Message::from_vec(bytes) {
            Ok(query) => query,
            Err(_) => return malformed(bytes),
        };
        if query.metadata.message_type != MessageType::Query {
            return Verdict::Drop;
        }
        if query.metadata.op_code != OpCode::Query {
            return refuse(&query, ResponseCode::NotImp);
        }
        let [question] = query.queries.as_slice() else { return refuse(&query, ResponseCode::FormErr) };
        if question.query_class() != DNSClass::IN {
            return refuse(&query, ResponseCode::Refused);
        }
        let looked_up = self.zone.lookup(&self.view, question.name(), question.query_type());
        let mut answer = reply(&query, ResponseCode::NoError);
        answer.metadata.authoritative = true;
        match looked_up {
            Lookup::NotOurs => return Verdict::Forward { query: Box::new(query) },
            // What is missing may only not be known yet.
            Lookup::NoName | Lookup::NoData if !self.view.is_complete() => {
                return refuse(&query, ResponseCode::ServFail);
            }
            Lookup::NoName => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authority(self.zone.soa());
            }
            Lookup::NoData => {
                answer.add_authority(self.zone.soa());
            }
            Lookup::Found { mut answers, additionals } => {
                // Clients take the first address: every one should be first in turn.
                answers.shuffle(&mut rand::rng());
                answer.insert_answers(answers);
                answer.insert_additionals(additionals);
            }
            Lookup::Alias { record, target } => {
                return Verdict::Follow { query: Box::new(query), alias: record, target };
            }
        }
        Verdict::Answer(encode(&query, answer, transport))
    }

    /// Asks upstream for what [`Responder::decide`] could not answer; `bytes` are the client's own.
    pub(super) async fn resolve(
        &self,
        verdict: Verdict,
        bytes: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        match verdict {
            Verdict::Drop => None,
            Verdict::Answer(answer) => Some(answer),
            Verdict::Forward { query } => {
                if let Some(answer) = self.remembered.get(&query, Instant::now()) {
                    return Some(encode(&query, answer, transport));
                }
                let Some(answer) = self.upstreams.ask(bytes, transport).await else { return failed(&query) };
                self.remembered.put(&query, &answer, Instant::now());
                Some(answer)
            }
            Verdict::Follow { query, alias, target } => {
                let question = query.queries.first()?;
                let mut answer = reply(&query, ResponseCode::NoError);
                answer.add_answer(*alias);
                match self.follow(target, question.query_type(), transport).await {
                    Some(records) => answer.add_answers(records),
                    None => return failed(&query),
                };
                Some(encode(&query, answer, transport))
            }
        }
    }

    /// The records of an alias' target, with the further aliases that lead to them.
    async fn follow(
        &self,
        mut target: Name,
        wanted: RecordType,
        transport: Transport,
    ) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        for _ in 0..MOST_ALIASES {
            match self.zone.lookup(&self.view, &target, wanted) {
                Lookup::Found { answers, .. } => records.extend(answers),
                Lookup::NoName | Lookup::NoData if !self.view.is_complete() => return None,
                Lookup::NoName | Lookup::NoData => {}
                Lookup::NotOurs => records.extend(self.ask_outside(target, wanted, transport).await?),
                Lookup::Alias { record, target: next } => {
                    records.push(*record);
                    target = next;
                    continue;
                }
            }
            return Some(records);
        }
        None
    }

    async fn ask_outside(&self, name: Name, wanted: RecordType, transport: Transport) -> Option<Vec<Record>> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, wanted));
        let question = message.to_vec().ok()?;
        let mut answer = Message::from_vec(&self.upstreams.ask(&question, transport).await?).ok()?;
        if answer.metadata.truncation && transport == Transport::Udp {
            answer = Message::from_vec(&self.upstreams.ask(&question, Transport::Tcp).await?).ok()?;
        }
        Some(answer.answers)
    }
}

fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.response_code = code;
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_PAYLOAD);
        reply.set_edns(edns);
    }
    reply
}

fn refuse(query: &Message, code: ResponseCode) -> Verdict {
    reply(query, code).to_vec().map_or(Verdict::Drop, Verdict::Answer)
}

fn failed(query: &Message) -> Option<Vec<u8>> {
    reply(query, ResponseCode::ServFail).to_vec().ok()
}

/// What does not parse but looks like a query is told so; anything else is dropped.
fn malformed(bytes: &[u8]) -> Verdict {
    let is_query = bytes.len() >= HEADER && bytes[2] & 0x80 == 0;
    if !is_query {
        return Verdict::Drop;
    }
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    error.to_vec().map_or(Verdict::Drop, Verdict::Answer)
}

/// The message as bytes; over UDP no longer than the client takes, with the truncation bit where it was.
fn encode(query: &Message, answer: Message, transport: Transport) -> Vec<u8> {
    let bytes = answer.to_vec().unwrap_or_default();
    let asked = query.edns.as_ref().map_or(SMALLEST_PAYLOAD, Edns::max_payload);
    let limit = usize::from(asked.clamp(SMALLEST_PAYLOAD, LARGEST_PAYLOAD));
    if transport == Transport::Tcp || bytes.len() <= limit {
        return bytes;
    }
    answer.truncate().to_vec().unwrap_or_default()
}

#[cfg(test)]
mod tests;
