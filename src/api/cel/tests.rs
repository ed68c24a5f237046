//! Tables of expressions.

use serde_json::json;

use super::*;

fn env() -> Env {
    Env::new().with("x", Type::Dyn).with("n", Type::Int).with("s", Type::String)
}

fn run(source: &str) -> Result<Value, String> {
    let program = Program::compile(source, &env()).map_err(|error| error.to_string())?;
    let object =
        json!({"a": 1, "list": [1, 2, 3], "map": {"k": "v"}, "name": "web", "null": null, "dash-ed": 5});
    let values = [("x", from_json(&object, None)), ("n", Value::Int(7)), ("s", Value::text("héllo"))];
    program.run(&Scope::Values(&values), &mut Budget::new(10_000)).map_err(|error| error.to_string())
}

#[test]
fn expressions_are_true() {
    let all = [
        "1 + 2 * 3 == 7 && 7 % 4 == 3 && -3 / 2 == -1",
        "1u + 2u == 3u && 1.5 * 2.0 == 3.0 && 0x10 == 16",
        "'a' + \"b\" == 'ab' && r'\\d' == '\\\\d' && '''a'b''' == \"a'b\" && 'x\\n'.size() == 2",
        "dyn(1) == 1.0 && dyn(1u) == 1",
        "true || 1 / 0 > 0",
        "!(false && 1 / 0 > 0)",
        "x.a == 1 ? true : false",
        "has(x.a) && !has(x.b) && has(x.null)",
        "x.list.all(i, i > 0) && x.list.exists(i, i == 2) && x.list.exists_one(i, i > 2)",
        "x.list.map(i, i * 2) == [2, 4, 6] && x.list.filter(i, i > 1) == [2, 3] && x.list.map(i, i > 1, i) == [2, 3]",
        "x.map.all(k, x.map[k] == 'v') && 'k' in x.map && 2 in x.list",
        "x.?b.orValue(3) == 3 && x.?a.hasValue() && x[?'zz'].orValue('d') == 'd' && !optional.none().hasValue()",
        "x.?a.optMap(v, v + 1).value() == 2",
        "[1, ?x.?b, ?x.?a] == [1, 1] && {'a': 1, ?'b': x.?b} == {'a': 1}",
        "x.dash__dash__ed == 5 || x.__dash__ == 1 || true",
        "s.size() == 5 && s.charAt(1) == 'é' && s.upperAscii() == 'HéLLO' && s.indexOf('l') == 2",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && 'abc'.substring(1, 2) == 'b'",
        "'abc'.matches('^a.c$') && 'a1b2'.findAll('[0-9]') == ['1', '2'] && 'aaa'.replace('a', 'b', 2) == 'bba'",
        "'%s is %d'.format(['x', 3]) == 'x is 3' && '%.2f'.format([1.5]) == '1.50'",
        "duration('1h') > duration('59m') && timestamp('2026-01-02T03:04:05Z').getHours() == 3",
        "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('500m')) == quantity('1')",
        "isQuantity('1k') && !isQuantity('x') && quantity('2k').asInteger() == 2000",
        "ip.isCanonical('10.0.0.1') && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && !isIP('10.0.0')",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked().ip() == ip('10.0.0.0')",
        "url('https://a.b:8080/c?d=e').getHostname() == 'a.b' && url('https://a.b:8080/').getPort() == '8080'",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-a').isLessThan(semver('1.0.0'))",
        "!format.dns1123Label().validate('ok').hasValue() && format.dns1123Label().validate('-').hasValue()",
        "sets.contains([1, 2], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
        "[3, 1, 2].max() == 3 && [1, 2].sum() == 3 && [1, 2].isSorted() && [[1], [2]].flatten() == [1, 2]",
        "cel.bind(y, n + 1, y * y) == 64",
        "type(1) == int && type('a') == string && type(timestamp('2026-01-01T00:00:00Z')) == google.protobuf.Timestamp",
        "string(1) == '1' && int('5') == 5 && double(1) == 1.0 && string(duration('90s')) == '90s'",
        "[1, 2].transformList(i, v, i + v) == [1, 3] && {'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "b'abc' == bytes('abc') && null == null && [1, 2][0] == 1",
        "// a comment\n true",
    ];
    for source in all {
        assert_eq!(run(source), Ok(Value::Bool(true)), "{source}");
    }
}

#[test]
fn failures_are_told_as_in_go() {
    let cases = [
        ("x.b", "no such key: b"),
        ("x.list[5]", "index out of bounds: 5"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("x.a + 'b'", "no such overload"),
        (
            "x.list.map(a, x.list.map(b, x.list.map(c, x.list.map(d, x.list.map(e, x.list.map(f, x.list.map(g, x.list.map(h, x.list.map(i, i)))))))))",
            "operation cancelled: actual cost limit exceeded",
        ),
    ];
    for (source, message) in cases {
        assert_eq!(run(source), Err(message.to_owned()), "{source}");
    }
}

#[test]
fn wrong_expressions_do_not_compile() {
    let cases = [
        ("y", "ERROR: <input>:1:1: undeclared reference to 'y' (in container '')\n | y\n | ^"),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting an expression\n | 1 +\n | ...^",
        ),
        (
            "n == s",
            "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'\n | n == s\n | ..^",
        ),
        (
            "s.nope()",
            "ERROR: <input>:1:2: undeclared reference to 'nope' (in container '')\n | s.nope()\n | .^",
        ),
        ("s.field", "ERROR: <input>:1:2: type 'string' does not support field selection\n | s.field\n | .^"),
        ("'a", "ERROR: <input>:1:1: Syntax error: unterminated string\n | 'a\n | ^"),
    ];
    for (source, message) in cases {
        assert_eq!(run(source), Err(message.to_owned()), "{source}");
    }
    let deep = "(".repeat(5000);
    assert!(run(&deep).is_err());
}

#[test]
fn schemas_give_types() {
    let schema = crate::api::structural::Structural::parse(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "n": {"type": "integer"}, "when": {"type": "string", "format": "date-time"}, "in": {"type": "string"},
            "a-b": {"type": "string"}, "m": {"type": "object", "additionalProperties": {"type": "string"}}}}}}));
    let env = Env::new().with("self", Type::of_resource(&schema, "object"));
    let kind = |source: &str| Program::compile(source, &env).map(|program| program.kind().to_string());
    assert_eq!(kind("self.spec.n").unwrap(), "int");
    assert_eq!(kind("self.spec.when").unwrap(), "google.protobuf.Timestamp");
    assert_eq!(kind("self.spec.__in__ + self.spec.a__dash__b").unwrap(), "string");
    assert_eq!(kind("self.spec.m['x'] + self.metadata.name").unwrap(), "string");
    let error = kind("self.spec.zzz > 1").unwrap_err().to_string();
    assert!(error.starts_with("ERROR: <input>:1:10: undefined field 'zzz'"), "{error}");
}
