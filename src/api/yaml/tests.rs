//! YAML reads as the JSON that it stands for, and is safe to read.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Value {
    decode(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}")).value
}

#[test]
fn manifests_read_as_json() {
    let text = "\
# A comment.
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web, tier: \"1\"}
spec:
  hostNetwork: yes
  terminationGracePeriodSeconds: 30
  containers:
  - name: web
    command: [sh, -c, \"echo hi\"]
    args:
    - |
      line one
      line two
    - >-
      folded
      text
  volumes:
  - secret:
      defaultMode: 0644
status: null
ratio: 1.5
text: '5'
";
    assert_eq!(
        read(text),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web", "tier": "1"}},
            "spec": {
                "hostNetwork": true, "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "web", "command": ["sh", "-c", "echo hi"],
                    "args": ["line one\nline two\n", "folded text"]}],
                "volumes": [{"secret": {"defaultMode": 420}}],
            },
            "status": null, "ratio": 1.5, "text": "5",
        })
    );
    assert_eq!(read("{\"a\": [1, true, null]}"), json!({"a": [1, true, null]}));
    assert_eq!(read("---\na: 1\n"), json!({"a": 1}));
}

#[test]
fn keys_are_texts_and_anchors_work() {
    assert_eq!(read("1: a\ntrue: b\n"), json!({"1": "a", "true": "b"}));
    assert_eq!(
        read("a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2\n"),
        json!({"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}})
    );
    assert_eq!(read("when: 2026-01-02T03:04:05Z\n"), json!({"when": "2026-01-02T03:04:05Z"}));
}

#[test]
fn duplicates_are_told() {
    let decoded = decode(b"spec:\n  a: 1\n  a: 2\n").unwrap();
    assert_eq!(decoded.value, json!({"spec": {"a": 2}}));
    assert_eq!(decoded.duplicates, ["spec.a"]);
}

#[test]
fn nonsense_is_refused() {
    for text in ["a: b: c", "a: [1", "a:\n\t- b", "a: 1\n---\nb: 2\n", "a: *missing", "a: .nan"] {
        assert!(matches!(decode(text.as_bytes()), Err(DecodeError::Yaml(_))), "{text:?}");
    }
    assert!(matches!(decode(b"\xff"), Err(DecodeError::Yaml(_))));
    assert_eq!(decode(b"\n").unwrap_err(), DecodeError::Empty);
    assert_eq!(
        decode("[".repeat(100_000).as_bytes())
            .map(|_| ())
            .map_err(|e| matches!(e, DecodeError::Depth | DecodeError::Yaml(_))),
        Err(true)
    );
}

#[test]
fn aliases_cannot_blow_up() {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..10 {
        let previous = vec![format!("*a{}", i - 1); 10].join(",");
        text.push_str(&format!("a{i}: &a{i} [{previous}]\n"));
    }
    assert!(decode(text.as_bytes()).is_err());
}

#[test]
fn what_is_written_reads_the_same() {
    let value = json!({
        "a": "yes", "b": "1", "c": "0644", "d": "null", "e": "~", "f": "", "g": " x ", "h": "a: b", "i": "# c",
        "j": "line\nline\n", "k": "- x", "l": "1e3", "m": [], "n": {}, "o": [[1], {"x": "on"}], "p": null,
        "q": true, "r": 1.5, "s": "é\t\"'", "yes": 1, "2026-01-02": "2026-01-02", "t": "=", "u": "<<",
    });
    let text = encode(&value).unwrap();
    assert_eq!(read(&text), value, "{text}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        "[ -~\n\té]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map("[ -~]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_survives_a_round_trip(value in any_json()) {
        let text = encode(&value).unwrap();
        let again = decode(text.as_bytes()).map(|d| d.value);
        prop_assert_eq!(again, Ok(value), "{}", text);
    }

    #[test]
    fn no_text_makes_the_decoder_panic(text in "[a-c:\\-\\[\\]{}&*!|>'\"#%@ \n\t0-9]{0,40}") {
        let _result = decode(text.as_bytes());
    }
}
