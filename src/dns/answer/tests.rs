//! Messages in and out, whatever a client sends.

use hickory_proto::rr::RecordType;
use proptest::prelude::*;

use super::*;
use crate::dns::zone::tests::view;

fn responder() -> Responder {
    Responder::new(Zone::new("cluster.local").unwrap(), view(), Upstreams::of(Vec::new()))
}

fn query(name: &str, wanted: RecordType) -> Message {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, wanted));
    message
}

fn answer(message: &Message) -> Message {
    match responder().decide(&message.to_vec().unwrap(), Transport::Udp) {
        Verdict::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("no answer: {other:?}"),
    }
}

#[test]
fn answer_repeats_id_and_question_and_is_authoritative() {
    let asked = query("web.default.svc.cluster.local", RecordType::A);
    let answer = answer(&asked);
    assert_eq!(answer.metadata.id, 4711);
    assert_eq!(answer.queries, asked.queries);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.answers.len(), 1);
}

#[test]
fn negative_answers_carry_the_soa() {
    let missing = answer(&query("no.default.svc.cluster.local", RecordType::A));
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities.len(), 1);
    let empty = answer(&query("web.default.svc.cluster.local", RecordType::AAAA));
    assert_eq!(empty.metadata.response_code, ResponseCode::NoError);
    assert_eq!((empty.answers.len(), empty.authorities.len()), (0, 1));
}

#[test]
fn what_is_not_a_question_is_refused() {
    let code = |message: &Message| answer(message).metadata.response_code;
    let mut none = query("web.default.svc.cluster.local", RecordType::A);
    none.queries.clear();
    assert_eq!(code(&none), ResponseCode::FormErr);
    let mut update = query("web.default.svc.cluster.local", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    let mut response = query("web.default.svc.cluster.local", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let verdict = responder().decide(&response.to_vec().unwrap(), Transport::Udp);
    assert!(matches!(verdict, Verdict::Drop), "answers are never answered: {verdict:?}");
}

#[test]
fn long_answers_are_truncated_over_udp_only() {
    let asked = query("web.default.svc.cluster.local", RecordType::A);
    let record = Record::from_rdata(
        asked.queries[0].name().clone(),
        5,
        hickory_proto::rr::RData::A("10.0.0.1".parse().unwrap()),
    );
    let mut long = reply(&asked, ResponseCode::NoError);
    long.add_answers(std::iter::repeat_n(record, 100));
    let udp = encode(&asked, long.clone(), Transport::Udp);
    assert!(udp.len() <= 512, "{}", udp.len());
    assert!(Message::from_vec(&udp).unwrap().metadata.truncation);
    let tcp = encode(&asked, long, Transport::Tcp);
    assert_eq!(Message::from_vec(&tcp).unwrap().answers.len(), 100);
}

#[tokio::test]
async fn unanswered_names_end_in_servfail() {
    let bytes = query("example.com", RecordType::A).to_vec().unwrap();
    let responder = responder();
    let verdict = responder.decide(&bytes, Transport::Udp);
    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    let answer = responder.resolve(verdict, &bytes, Transport::Udp).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn missing_names_are_no_verdict_before_the_lists_are_complete() {
    let empty = View::new(&crate::client::Informers::detached());
    let responder = Responder::new(Zone::new("cluster.local").unwrap(), empty, Upstreams::of(Vec::new()));
    let bytes = query("web.default.svc.cluster.local", RecordType::A).to_vec().unwrap();
    let Verdict::Answer(answer) = responder.decide(&bytes, Transport::Udp) else { panic!("no answer") };
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let verdict = responder().decide(&bytes, Transport::Udp);
        if bytes.len() < HEADER {
            prop_assert!(matches!(verdict, Verdict::Drop));
        }
    }
}
