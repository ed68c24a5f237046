//! JSONPath as `kubectl` knows it, as far as printed columns use it: fields, indices, slices, wildcards, filters and
//! recursive descent.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Every,
    Descend,
    Slice(Option<i64>, Option<i64>),
    Index(i64),
    Filter(JsonPath, Option<(Operator, Operand)>),
    Union(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Path(JsonPath),
}

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PathError(String);

impl JsonPath {
    /// Parses `.spec.x`, `{.spec.x}`, `$.spec.x`, `.a[0]`, `.a[*].b`, `.a[?(@.b=="c")].d`, `.a['b']`.
    ///
    /// # Errors
    /// The text is no path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let mut parser = Parser { rest: inner.trim() };
        let steps = parser.steps()?;
        if parser.rest.is_empty() { Ok(Self(steps)) } else { Err(parser.wrong()) }
    }

    /// Every value that the path leads to.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![root], |values, step| {
            values.into_iter().flat_map(|value| step.follow(value)).collect()
        })
    }

    /// The names of the fields, when the path consists of nothing else.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0
            .iter()
            .map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None })
            .collect()
    }
}

impl Step {
    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Union(names), Value::Object(map)) => {
                names.iter().filter_map(|name| map.get(name)).collect()
            }
            (Self::Every, Value::Object(map)) => map.values().collect(),
            (Self::Every, Value::Array(list)) => list.iter().collect(),
            (Self::Descend, value) => descend(value),
            (Self::Index(at), Value::Array(list)) => {
                place(*at, list.len()).and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::Slice(from, to), Value::Array(list)) => {
                let clamp = |at: i64| place(at, list.len()).unwrap_or(0).min(list.len());
                let (from, to) = (from.map_or(0, clamp), to.map_or(list.len(), clamp));
                list.get(from..to).into_iter().flatten().collect()
            }
            (Self::Filter(left, test), Value::Array(list)) => {
                list.iter().filter(|item| holds(left, test.as_ref(), item)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn place(at: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if at < 0 { at + length } else { at }).ok()
}

fn descend(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    match value {
        Value::Object(map) => found.extend(map.values().flat_map(descend)),
        Value::Array(list) => found.extend(list.iter().flat_map(descend)),
        _ => {}
    }
    found
}

fn holds(left: &JsonPath, test: Option<&(Operator, Operand)>, item: &Value) -> bool {
    let found = left.find(item);
    let Some((operator, operand)) = test else { return !found.is_empty() };
    let right = match operand {
        Operand::Literal(value) => Some(value),
        Operand::Path(path) => path.find(item).into_iter().next(),
    };
    let (Some(left), Some(right)) = (found.first(), right) else { return false };
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b))
        }
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == &b).then_some(std::cmp::Ordering::Equal),
    };
    match operator {
        Operator::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Operator::AtMost => order.is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Operator::AtLeast => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

struct Parser<'t> {
    rest: &'t str,
}

impl Parser<'_> {
    fn wrong(&self) -> PathError {
        PathError(format!("unrecognized character in action: {:?}", self.rest.chars().next().unwrap_or(' ')))
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn steps(&mut self) -> Result<Vec<Step>, PathError> {
        let mut steps = Vec::new();
        if !self.eat("$") {
            let _at = self.eat("@");
        }
        loop {
            if self.eat("..") {
                steps.push(Step::Descend);
                if !self.rest.starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if self.eat(".") {
                if self.rest.is_empty() {
                    return Ok(steps);
                }
                if !self.rest.starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else if steps.is_empty() && self.rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                steps.push(self.name()?);
            } else {
                return Ok(steps);
            }
        }
    }

    fn name(&mut self) -> Result<Step, PathError> {
        if self.eat("*") {
            return Ok(Step::Every);
        }
        let (mut name, mut used, mut escaped) = (String::new(), self.rest.len(), false);
        for (at, c) in self.rest.char_indices() {
            if escaped {
                name.push(c);
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ':' | '$') {
                name.push(c);
            } else {
                used = at;
                break;
            }
        }
        self.rest = &self.rest[used..];
        if name.is_empty() { Err(self.wrong()) } else { Ok(Step::Field(name)) }
    }

    /// What stands between brackets.
    fn bracket(&mut self) -> Result<Step, PathError> {
        if self.eat("?(") {
            let left = JsonPath(self.filter_path()?);
            let test = self.comparison()?;
            self.rest = self.rest.trim_start();
            return if self.eat(")]") { Ok(Step::Filter(left, test)) } else { Err(self.wrong()) };
        }
        let end = self.closing()?;
        let inside = self.rest[..end].trim().to_owned();
        self.rest = &self.rest[end + 1..];
        let quoted = |text: &str| -> Option<String> {
            let text = text.trim();
            let bare = ['\'', '"'].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q))?;
            Some(bare.replace("\\.", ".").replace("\\'", "'"))
        };
        let bad = || PathError(format!("invalid array index {inside}"));
        if inside == "*" {
            return Ok(Step::Every);
        }
        if let Some(name) = quoted(&inside).filter(|_| !inside.contains("','")) {
            return Ok(Step::Field(name));
        }
        if inside.starts_with(['\'', '"']) {
            let names: Option<Vec<String>> = inside.split(',').map(quoted).collect();
            return names.map(Step::Union).ok_or_else(bad);
        }
        if let Some((from, to)) = inside.split_once(':') {
            let to = to.split(':').next().unwrap_or_default();
            let bound = |text: &str| match text.trim() {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| bad()),
            };
            return Ok(Step::Slice(bound(from)?, bound(to)?));
        }
        inside.parse().map(Step::Index).map_err(|_| bad())
    }

    fn closing(&self) -> Result<usize, PathError> {
        let mut quote = None;
        for (at, c) in self.rest.char_indices() {
            match (quote, c) {
                (Some(q), c) if q == c => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, ']') => return Ok(at),
                _ => {}
            }
        }
        Err(PathError("unterminated array".to_owned()))
    }

    fn filter_path(&mut self) -> Result<Vec<Step>, PathError> {
        self.rest = self.rest.trim_start();
        self.steps()
    }

    fn comparison(&mut self) -> Result<Option<(Operator, Operand)>, PathError> {
        self.rest = self.rest.trim_start();
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let Some((text, operator)) = operators.into_iter().find(|(text, _)| self.rest.starts_with(text))
        else {
            return Ok(None);
        };
        self.eat(text);
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(['@', '$']) {
            return Ok(Some((operator, Operand::Path(JsonPath(self.steps()?)))));
        }
        Ok(Some((operator, Operand::Literal(self.literal()?))))
    }

    fn literal(&mut self) -> Result<Value, PathError> {
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let inside = &self.rest[1..];
            let end = inside.find(quote).ok_or_else(|| self.wrong())?;
            let value = Value::from(&inside[..end]);
            self.rest = &inside[end + 1..];
            return Ok(value);
        }
        let end = self.rest.find([')', ' ']).unwrap_or(self.rest.len());
        let value = serde_json::from_str(&self.rest[..end]).map_err(|_| self.wrong())?;
        self.rest = &self.rest[end..];
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({"metadata": {"labels": {"app.kubernetes.io/name": "x"}},
            "spec": {"list": [{"n": "a", "v": 1}, {"n": "b", "v": 2}, {"n": "c", "v": 3}]}});
        let cases = [
            (".spec.list[0].n", json!(["a"])),
            ("{.spec.list[-1].n}", json!(["c"])),
            ("$.spec.list[*].v", json!([1, 2, 3])),
            (".spec.list[1:].n", json!(["b", "c"])),
            (".spec.list[?(@.n==\"b\")].v", json!([2])),
            (".spec.list[?(@.v >= 2)].n", json!(["b", "c"])),
            (".metadata.labels.app\\.kubernetes\\.io/name", json!(["x"])),
            (".metadata.labels['app\\.kubernetes\\.io/name']", json!(["x"])),
            ("..n", json!(["a", "b", "c"])),
            (".spec.none", json!([])),
        ];
        for (path, expected) in cases {
            let found: Vec<Value> =
                JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), expected, "{path}");
        }
        for broken in [".a[", ".a[x]", ".a[?(@.b==)]", "a b"] {
            assert!(JsonPath::parse(broken).is_err(), "{broken}");
        }
        assert_eq!(JsonPath::parse(".spec.a").unwrap().fields(), Some(vec!["spec", "a"]));
    }
}
