//! Answers of the host's resolvers that may be given again: for as long as they say, but never long.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Longest that an answer is kept, whatever it says.
const LONGEST: Duration = Duration::from_secs(30);
/// Most answers that are kept, and the longest that is worth it.
const MOST: usize = 1024;
const LARGEST: usize = 4096;

/// A bounded set of answers.
#[derive(Default)]
pub(super) struct Remembered {
    answers: Mutex<HashMap<Key, Kept>>,
}

/// What an answer depends on besides the servers.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    name: Name,
    wanted: RecordType,
    edns: bool,
    dnssec_ok: bool,
    checking_disabled: bool,
    recursion_desired: bool,
}

struct Kept {
    answer: Message,
    since: Instant,
    until: Instant,
}

impl Remembered {
    /// The answer to this query, if it is known and still true: with the query's id and question, and with the time
    /// that it was kept taken off its lifetimes.
    pub(super) fn get(&self, query: &Message, now: Instant) -> Option<Message> {
        let key = key(query)?;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = answers.get(&key)?;
        if kept.until <= now {
            answers.remove(&key);
            return None;
        }
        let age = now.saturating_duration_since(kept.since).as_secs() as u32;
        let mut answer = kept.answer.clone();
        drop(answers);
        answer.metadata.id = query.metadata.id;
        answer.queries.clone_from(&query.queries);
        for record in records(&mut answer) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    /// Keeps what a server answered, if it may be kept.
    pub(super) fn put(&self, query: &Message, answer: &[u8], now: Instant) {
        let (Some(key), true) = (key(query), answer.len() <= LARGEST) else { return };
        let Ok(mut answer) = Message::from_vec(answer) else { return };
        let Some(lifetime) = lifetime(query, &mut answer) else { return };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            answers.retain(|_, kept| kept.until > now);
        }
        if answers.len() < MOST {
            answers.insert(key, Kept { answer, since: now, until: now + lifetime });
        }
    }
}

fn key(query: &Message) -> Option<Key> {
    let [question] = query.queries.as_slice() else { return None };
    Some(Key {
        name: question.name().to_lowercase(),
        wanted: question.query_type(),
        edns: query.edns.is_some(),
        dnssec_ok: query.edns.as_ref().map(Edns::flags).is_some_and(|flags| flags.dnssec_ok),
        checking_disabled: query.metadata.checking_disabled,
        recursion_desired: query.metadata.recursion_desired,
    })
}

/// How long an answer is true; `None` when it must not be kept.
fn lifetime(query: &Message, answer: &mut Message) -> Option<Duration> {
    let same = |a: &Message, b: &Message| {
        let name = |m: &Message| m.queries.first().map(|q| (q.name().to_lowercase(), q.query_type()));
        name(a) == name(b)
    };
    if answer.metadata.truncation || !same(query, answer) {
        return None;
    }
    let positive = match answer.metadata.response_code {
        ResponseCode::NoError => !answer.answers.is_empty(),
        ResponseCode::NXDomain => false,
        _ => return None,
    };
    // That something is missing is true for as long as the zone's SOA says (RFC 2308), and not without one.
    let negative = match positive {
        true => u32::MAX,
        false => answer.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
            _ => None,
        })?,
    };
    let shortest = records(answer).map(|record| record.ttl).min().unwrap_or(u32::MAX);
    let seconds = u64::from(negative.min(shortest));
    (seconds > 0).then(|| LONGEST.min(Duration::from_secs(seconds)))
}

fn records(answer: &mut Message) -> impl Iterator<Item = &mut Record> {
    answer.answers.iter_mut().chain(&mut answer.authorities).chain(&mut answer.additionals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::rdata::SOA;

    fn query(name: &str, id: u16) -> Message {
        let mut message = Message::query();
        message.metadata.id = id;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message
    }

    fn answer(name: &str, ttl: Option<u32>, code: ResponseCode) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = code;
        message.add_queries(query(name, 1).queries);
        let owner = Name::from_ascii(name).unwrap();
        if let Some(ttl) = ttl {
            let data = RData::A(std::net::Ipv4Addr::new(192, 0, 2, 1).into());
            message.add_answer(Record::from_rdata(owner, ttl, data));
        }
        message
    }

    fn kept(answer: &Message, after: Duration) -> Option<Message> {
        let remembered = Remembered::default();
        let now = Instant::now();
        remembered.put(&query("example.com.", 1), &answer.to_vec().unwrap(), now);
        remembered.get(&query("EXAMPLE.com.", 7), now + after)
    }

    #[test]
    fn an_answer_is_repeated_to_its_question_with_less_time_to_live() {
        let again =
            kept(&answer("example.com.", Some(20), ResponseCode::NoError), Duration::from_secs(8)).unwrap();
        assert_eq!((again.metadata.id, again.answers[0].ttl), (7, 12));
        assert_eq!(again.queries, query("EXAMPLE.com.", 7).queries);
    }

    #[test]
    fn no_answer_is_kept_longer_than_it_says_or_than_the_bound() {
        let short = answer("example.com.", Some(3), ResponseCode::NoError);
        assert!(kept(&short, Duration::from_secs(2)).is_some());
        assert!(kept(&short, Duration::from_secs(3)).is_none());
        let long = answer("example.com.", Some(86400), ResponseCode::NoError);
        assert!(kept(&long, Duration::from_secs(29)).is_some());
        assert!(kept(&long, LONGEST).is_none());
        assert!(kept(&answer("example.com.", Some(0), ResponseCode::NoError), Duration::ZERO).is_none());
    }

    #[test]
    fn what_is_missing_is_remembered_as_the_soa_says() {
        let mut missing = answer("example.com.", None, ResponseCode::NXDomain);
        assert!(kept(&missing, Duration::ZERO).is_none(), "no SOA");
        let name = Name::from_ascii("com.").unwrap();
        let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 5);
        missing.add_authority(Record::from_rdata(name, 60, RData::SOA(soa)));
        assert!(kept(&missing, Duration::from_secs(4)).is_some());
        assert!(kept(&missing, Duration::from_secs(5)).is_none());
    }

    #[test]
    fn failures_cut_answers_and_answers_to_other_questions_are_not_kept() {
        let good = answer("example.com.", Some(20), ResponseCode::NoError);
        let mut cut = good.clone();
        cut.metadata.truncation = true;
        let other = answer("other.example.com.", Some(20), ResponseCode::NoError);
        let failed = answer("example.com.", Some(20), ResponseCode::ServFail);
        for bad in [cut, other, failed] {
            assert!(kept(&bad, Duration::ZERO).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let remembered = Remembered::default();
        let now = Instant::now();
        for i in 0..MOST + 10 {
            let name = format!("h{i}.example.com.");
            let answer = answer(&name, Some(20), ResponseCode::NoError).to_vec().unwrap();
            remembered.put(&query(&name, 1), &answer, now);
        }
        assert_eq!(remembered.answers.lock().unwrap().len(), MOST);
        let later = now + Duration::from_secs(21);
        let fresh = answer("new.example.com.", Some(20), ResponseCode::NoError).to_vec().unwrap();
        remembered.put(&query("new.example.com.", 1), &fresh, later);
        assert_eq!(remembered.answers.lock().unwrap().len(), 1);
    }
}
