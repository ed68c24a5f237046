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

#[tokio::test]
async fn aliases_within_the_cluster_are_followed_without_asking_anybody() {
    for (alias, expected, code) in [
        ("inside", vec!["CNAME", "CNAME", "A"], ResponseCode::NoError),
        ("again", vec!["CNAME", "A"], ResponseCode::NoError),
        ("circle", vec![], ResponseCode::ServFail),
    ] {
        let asked = query(&format!("{alias}.default.svc.cluster.local"), RecordType::A).to_vec().unwrap();
        let responder = responder();
        let verdict = responder.decide(&asked, Transport::Udp);
        let answer = responder.resolve(verdict, &asked, Transport::Udp).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        let types: Vec<_> = answer.answers.iter().map(|r| r.record_type().to_string()).collect();
        assert_eq!(
            (types, answer.metadata.response_code),
            (expected.into_iter().map(str::to_owned).collect(), code),
            "{alias}"
        );
    }
}

/// A resolver that answers over UDP with the truncation bit, and over TCP with an address; how often it was asked.
async fn cutting_resolver() -> (Upstreams, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = tokio::net::UdpSocket::bind(address).await.unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let mut cut = reply(&query, ResponseCode::NoError);
        cut.metadata.truncation = true;
        udp.send_to(&cut.to_vec().unwrap(), client).await.unwrap();
        let (mut stream, _) = tcp.accept().await.unwrap();
        let length = stream.read_u16().await.unwrap();
        stream.read_exact(&mut buffer[..length.into()]).await.unwrap();
        let query = Message::from_vec(&buffer[..length.into()]).unwrap();
        let mut whole = reply(&query, ResponseCode::NoError);
        let data = hickory_proto::rr::RData::A(std::net::Ipv4Addr::new(192, 0, 2, 7).into());
        whole.add_answer(Record::from_rdata(query.queries[0].name().clone(), 60, data));
        let bytes = whole.to_vec().unwrap();
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    (Upstreams::of(vec![address]), task)
}

#[tokio::test]
async fn a_cut_answer_for_an_alias_is_asked_for_again_over_tcp() {
    let (upstreams, resolver) = cutting_resolver().await;
    let responder = Responder::new(Zone::new("cluster.local").unwrap(), view(), upstreams);
    let asked = query("elsewhere.default.svc.cluster.local", RecordType::A).to_vec().unwrap();
    let verdict = responder.decide(&asked, Transport::Udp);
    let answer = responder.resolve(verdict, &asked, Transport::Udp).await.unwrap();
    resolver.await.unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.answers.last().unwrap().data.to_string(), "192.0.2.7");
}

#[tokio::test]
async fn a_forwarded_answer_is_remembered() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let upstreams = Upstreams::of(vec![server.local_addr().unwrap()]);
    let responder = Responder::new(Zone::new("cluster.local").unwrap(), view(), upstreams);
    // The server answers once and is gone.
    let once = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, client) = server.recv_from(&mut buffer).await.unwrap();
        let mut answer = reply(&Message::from_vec(&buffer[..length]).unwrap(), ResponseCode::NoError);
        let data = hickory_proto::rr::RData::A(std::net::Ipv4Addr::new(192, 0, 2, 7).into());
        answer.add_answer(Record::from_rdata(answer.queries[0].name().clone(), 60, data));
        server.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
    });
    for id in [1, 2] {
        let mut asked = query("example.com", RecordType::A);
        asked.metadata.id = id;
        let asked = asked.to_vec().unwrap();
        let verdict = responder.decide(&asked, Transport::Udp);
        let answer =
            Message::from_vec(&responder.resolve(verdict, &asked, Transport::Udp).await.unwrap()).unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len()), (id, 1));
    }
    once.await.unwrap();
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
