//! What passes, what does not, and in which words.

use super::*;

type Rule = fn(&str) -> Vec<String>;

#[test]
fn good_and_bad_texts_of_every_rule() {
    let long = "a".repeat(64);
    let cases: [(&str, Rule, &[&str], &[&str]); 12] = [
        (
            "label",
            is_dns1123_label,
            &["a", "0", "my-name", "123-abc"],
            &["", "A", "-a", "a-", "a.b", "é", &long],
        ),
        (
            "subdomain",
            is_dns1123_subdomain,
            &["a.b", "example.com", &long],
            &["", "a..b", ".a", "a.", "a.-b", "A.b"],
        ),
        ("wildcard", is_wildcard_dns1123_subdomain, &["*.a.b"], &["", "*", "a.b", "*.*", "*.A"]),
        ("1035", is_dns1035_label, &["a", "a1-b"], &["", "1a", "a-", "-", "A", &long]),
        (
            "qualified",
            is_qualified_name,
            &["app", "app.kubernetes.io/name", "A_b.c-d"],
            &["", "/a", "a/", "a/b/c", "A.b/c", "-a", &long],
        ),
        ("value", is_label_value, &["", "a", "A_b.c-d"], &["-a", "a b", "a/b", &long]),
        (
            "port name",
            is_port_name,
            &["http", "a", "8080-tcp"],
            &["", "80", "A", "-a", "a--b", "abcdefghijklmnop"],
        ),
        ("ip", is_ip, &["10.0.0.1", "::1"], &["", "10.0.0", "010.0.0.1", "10.0.0.256"]),
        (
            "cidr",
            is_cidr,
            &["10.0.0.0/8", "::/0"],
            &["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "x/8", "1.1.1.1/+8"],
        ),
        (
            "interface address",
            is_interface_address,
            &["10.0.0.1/8", "2001:db8::1/64"],
            &["", "10.0.0.1", "10.0.0.1/33", "010.0.0.1/8", "2001:DB8::1/64", "::ffff:10.0.0.1/120"],
        ),
        ("env", is_env_var_name, &["A", "a.b-c 1"], &["", "A=B", "é", "a\n"]),
        ("key", is_config_map_key, &["a.txt", "_", ".a"], &["", ".", "..", "..a", "a/b"]),
    ];
    for (what, rule, good, bad) in cases {
        for text in good {
            assert_eq!(rule(text), Vec::<String>::new(), "{what} {text:?}");
        }
        for text in bad {
            assert!(!rule(text).is_empty(), "{what} {text:?}");
        }
    }
}

#[test]
fn messages_say_the_rule_and_give_examples() {
    assert_eq!(
        is_dns1123_label("A"),
        [
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
          end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ]
    );
    assert_eq!(is_qualified_name("/a"), ["prefix part must be non-empty"]);
    assert_eq!(is_qualified_name("")[0], "name part must be non-empty");
    assert_eq!(is_label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    assert_eq!(is_port_number(0), ["must be between 1 and 65535, inclusive"]);
    assert_eq!(is_port_number(65535), Vec::<String>::new());
    assert_eq!(is_path_segment_name("a/b%"), ["may not contain '/'", "may not contain '%'"]);
    assert_eq!(is_path_segment_name(".."), ["may not be '..'"]);
    assert_eq!(is_path_segment_name("system:node"), Vec::<String>::new());
    assert_eq!(is_http_header_name("X-A"), Vec::<String>::new());
    assert_eq!(is_http_header_name("X:A").len(), 1);
    assert_eq!(is_percent("25%"), Vec::<String>::new());
    assert_eq!(is_percent("%").len(), 1);
}

#[test]
fn a_generated_name_is_checked_with_its_suffix() {
    assert_eq!(mask_trailing_dash("web-"), "weba");
    assert_eq!(mask_trailing_dash("web"), "web");
    assert_eq!(mask_trailing_dash("-"), "-");
}
