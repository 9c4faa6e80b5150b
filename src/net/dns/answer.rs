//! What a question deserves: an answer of ours, somebody else's, or none.
//!
//! Pure: bytes of a question in, bytes of an answer out.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::registry::Registry;

/// How long an answer may be remembered, in seconds. Short, because containers come and go; there is nothing to be
/// saved, as the answer is a few microseconds away.
const TIME_TO_LIVE: u32 = 5;
/// What a client without EDNS takes in a datagram (RFC 1035).
const PLAIN_DATAGRAM: usize = 512;
/// What we promise to take in a datagram.
const OUR_DATAGRAM: u16 = 1232;

/// What to do with a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send this back.
    Answer(Vec<u8>),
    /// Somebody else knows: ask, and send back what they say, or this if nobody does.
    Forward { failure: Vec<u8> },
    /// Not a question.
    Ignore,
}

/// Decides on a container's question. `limit` is the largest answer that fits; `None`: any (TCP).
pub fn decide(question: &[u8], container: &str, registry: &Registry, datagram: bool) -> Verdict {
    let Ok(request) = Message::from_vec(question) else {
        return match question {
            // Enough of a header to say that it was not understood; answers (high bit set) are never answered.
            [first, second, flags, ..] if question.len() >= 12 && flags & 0x80 == 0 => {
                let id = u16::from_be_bytes([*first, *second]);
                encode(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
            }
            _ => Verdict::Ignore,
        };
    };
    if request.metadata.message_type != MessageType::Query {
        return Verdict::Ignore;
    }
    let failure = |code| response(&request, code);
    if request.metadata.op_code != OpCode::Query {
        return encode(failure(ResponseCode::NotImp));
    }
    let [query] = request.queries.as_slice() else {
        return encode(failure(ResponseCode::FormErr));
    };
    if query.query_class() != DNSClass::IN {
        return forward(&request, container, registry);
    }
    let Some(records) = records(query, container, registry) else {
        return forward(&request, container, registry);
    };
    let mut answer = failure(ResponseCode::NoError);
    answer.add_answers(records);
    fit(answer, &request, datagram)
}

fn forward(request: &Message, container: &str, registry: &Registry) -> Verdict {
    // A network without a way out has none for questions either: names can carry data out (CVE-2024-29018).
    let failure = response(request, ResponseCode::ServFail);
    if !registry.leads_out(container) {
        return encode(failure);
    }
    match encode(failure) {
        Verdict::Answer(failure) => Verdict::Forward { failure },
        other => other,
    }
}

/// Returns the records of a name that we know; none of the wanted type is an answer too.
fn records(query: &Query, container: &str, registry: &Registry) -> Option<Vec<Record>> {
    let name = query.name();
    let record = |data| Record::from_rdata(name.clone(), TIME_TO_LIVE, data);
    if query.query_type() == RecordType::PTR {
        let address = address_of(name)?;
        let host = Name::from_ascii(format!("{}.", registry.name_of(container, address)?)).ok()?;
        return Some(vec![record(RData::PTR(PTR(host)))]);
    }
    let text = name.to_ascii();
    let addresses = registry.find(container, text.strip_suffix('.').unwrap_or(&text))?;
    let records: Vec<Record> = match query.query_type() {
        RecordType::A => addresses
            .ipv4
            .into_iter()
            .map(|address| record(RData::A(A(address))))
            .collect(),
        RecordType::AAAA => addresses
            .ipv6
            .into_iter()
            .map(|address| record(RData::AAAA(AAAA(address))))
            .collect(),
        RecordType::ANY => {
            let ipv4 = addresses.ipv4.into_iter().map(|address| record(RData::A(A(address))));
            let ipv6 = addresses
                .ipv6
                .into_iter()
                .map(|address| record(RData::AAAA(AAAA(address))));
            ipv4.chain(ipv6).collect()
        }
        _ => Vec::new(),
    };
    if !records.is_empty() {
        registry.next_turn();
    }
    Some(records)
}

/// Reads the address that a name below `in-addr.arpa` or `ip6.arpa` stands for, if it is a whole one.
fn address_of(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    let whole = if network.addr().is_ipv4() { 32 } else { 128 };
    (network.prefix_len() == whole).then(|| network.addr())
}

fn response(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_DATAGRAM);
        response.set_edns(edns);
    }
    response
}

/// Encodes an answer; one that is too large for a datagram becomes the advice to ask by TCP.
fn fit(answer: Message, request: &Message, datagram: bool) -> Verdict {
    let room = match &request.edns {
        Some(edns) => usize::from(edns.max_payload()).max(PLAIN_DATAGRAM),
        None => PLAIN_DATAGRAM,
    };
    match encode(answer.clone()) {
        Verdict::Answer(bytes) if datagram && bytes.len() > room => {
            let mut short = response(request, ResponseCode::NoError);
            short.metadata.truncation = true;
            // As many as fit, for those who do not ask again.
            for record in answer.answers {
                short.add_answer(record);
                let size = short.to_vec().map_or(usize::MAX, |bytes| bytes.len());
                if size > room {
                    short.answers.pop();
                    break;
                }
            }
            encode(short)
        }
        other => other,
    }
}

fn encode(message: Message) -> Verdict {
    message.to_vec().map_or(Verdict::Ignore, Verdict::Answer)
}

#[cfg(test)]
mod tests {
    use super::super::registry::tests::endpoint;
    use super::*;
    use proptest::prelude::*;

    fn registry() -> Registry {
        let registry = Registry::default();
        registry.attach("web", &endpoint(1, 2, &["p-web-1", "web"]), true);
        registry.attach("db", &endpoint(1, 3, &["p-db-1", "db"]), true);
        registry
    }

    fn question(name: &str, kind: RecordType, edns: bool) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn answered(question: &[u8], registry: &Registry) -> Message {
        match decide(question, "web", registry, true) {
            Verdict::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_has_its_address_whatever_its_case() {
        let answer = answered(&question("Db.", RecordType::A, false), &registry());
        assert_eq!(answer.metadata.id, 7);
        assert!(answer.metadata.recursion_available);
        assert_eq!(answer.queries[0].name().to_ascii(), "Db.");
        assert_eq!(answer.answers[0].data.ip_addr(), Some("10.1.0.3".parse().unwrap()));
        assert!(answer.edns.is_none());
    }

    #[test]
    fn a_known_name_without_such_records_is_no_unknown_name() {
        for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT] {
            let answer = answered(&question("db.", kind, true), &registry());
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
            assert!(answer.answers.is_empty());
            assert!(answer.edns.is_some());
        }
    }

    #[test]
    fn an_address_has_its_name() {
        let answer = answered(&question("3.0.1.10.in-addr.arpa.", RecordType::PTR, false), &registry());
        assert_eq!(answer.answers[0].data.to_string(), "p-db-1.net1.");
    }

    #[test]
    fn what_we_do_not_know_is_asked_elsewhere() {
        for (name, kind) in [
            ("example.com.", RecordType::A),
            ("nobody.", RecordType::A),
            ("9.9.9.9.in-addr.arpa.", RecordType::PTR),
        ] {
            let verdict = decide(&question(name, kind, false), "web", &registry(), true);
            let Verdict::Forward { failure } = verdict else {
                panic!("{verdict:?}")
            };
            let failure = Message::from_vec(&failure).unwrap();
            assert_eq!(failure.metadata.response_code, ResponseCode::ServFail);
            assert_eq!(failure.metadata.id, 7);
        }
    }

    #[test]
    fn a_container_without_a_way_out_asks_nobody() {
        let registry = Registry::default();
        let mut inside = endpoint(1, 2, &["web"]);
        inside.leads_out = false;
        registry.attach("web", &inside, true);
        let answer = answered(&question("example.com.", RecordType::A, false), &registry);
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn an_answer_too_large_for_a_datagram_says_so() {
        let registry = Registry::default();
        registry.attach("web", &endpoint(1, 2, &["web"]), true);
        for host in 3..100 {
            registry.attach(&format!("r{host}"), &endpoint(1, host, &["many"]), true);
        }
        let plain = answered(&question("many.", RecordType::A, false), &registry);
        assert!(plain.metadata.truncation);
        assert!(!plain.answers.is_empty() && plain.to_vec().unwrap().len() <= 512);
        let stream = decide(&question("many.", RecordType::A, false), "web", &registry, false);
        let Verdict::Answer(bytes) = stream else {
            panic!("{stream:?}")
        };
        let whole = Message::from_vec(&bytes).unwrap();
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 97);
    }

    #[test]
    fn what_is_no_question_is_not_answered() {
        let registry = registry();
        let answer = match decide(&question("db.", RecordType::A, false), "web", &registry, true) {
            Verdict::Answer(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(decide(&answer, "web", &registry, true), Verdict::Ignore);
        assert_eq!(decide(b"hello", "web", &registry, true), Verdict::Ignore);
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            decide(&bytes, "web", &registry(), true);
        }
    }
}
