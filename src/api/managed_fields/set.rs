//! Sets of fields, as `fieldsV1` writes them.
//!
//! A set is a trie of path elements in their written form: `f:name` (a field), `k:{"name":"x"}` (an item of a list
//! of type map), `v:"x"` (an item of a set), `i:0` (an index). Every node says whether the path that ends there is
//! a member; a node that is no member and has nothing below is not kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::api::schema::{Kind, Schema};

/// A set of fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: BTreeMap<String, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// The set that `fieldsV1` describes; `None` when it is malformed.
    pub fn parse(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (element, below) in fields.as_object()? {
            if element == "." {
                continue;
            }
            let element = canonical(element)?;
            let member = below.as_object()?.is_empty() || below.get(".").is_some();
            set.nodes.insert(element, Node { member, below: Self::parse(below)? });
        }
        Some(set)
    }

    /// The set as `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let nodes = self.nodes.iter().map(|(element, node)| {
            let mut below = node.below.to_json();
            if let Some(map) = below.as_object_mut().filter(|map| node.member && !map.is_empty()) {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (element.clone(), below)
        });
        Value::Object(nodes.collect())
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds the path that ends with the last of `elements`.
    pub(super) fn insert<S: AsRef<str>>(&mut self, elements: impl IntoIterator<Item = S>) {
        let mut set = self;
        let mut elements = elements.into_iter().peekable();
        while let Some(element) = elements.next() {
            let node = match set.nodes.contains_key(element.as_ref()) {
                true => set.nodes.get_mut(element.as_ref()),
                false => Some(set.nodes.entry(element.as_ref().to_owned()).or_default()),
            };
            let Some(node) = node else { return };
            if elements.peek().is_none() {
                node.member = true;
                return;
            }
            set = &mut node.below;
        }
    }

    /// Adds a node for `element`, with what is below it.
    pub(super) fn insert_node(&mut self, element: String, member: bool, below: Set) {
        if !member && below.is_empty() {
            return;
        }
        let node = self.nodes.entry(element).or_default();
        node.member |= member;
        node.below.union(below);
    }

    /// The same members below `path`.
    pub(super) fn under(self, path: &[String]) -> Set {
        if self.is_empty() {
            return self;
        }
        path.iter().rev().fold(self, |below, element| Set {
            nodes: BTreeMap::from([(element.clone(), Node { member: false, below })]),
        })
    }

    /// What is below `element`.
    pub(super) fn below(&self, element: &str) -> Option<&Set> {
        self.nodes.get(element).map(|node| &node.below)
    }

    /// Whether the path of `element` is a member.
    pub(super) fn has(&self, element: &str) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// Adds the members of `other`.
    pub(super) fn union(&mut self, other: Set) {
        if self.nodes.is_empty() {
            self.nodes = other.nodes;
            return;
        }
        for (element, node) in other.nodes {
            let own = self.nodes.entry(element).or_default();
            own.member |= node.member;
            own.below.union(node.below);
        }
    }

    /// Removes the members of `other`.
    pub(super) fn subtract(&mut self, other: &Set) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain(|element, node| {
            if let Some(gone) = other.nodes.get(element) {
                node.member &= !gone.member;
                node.below.subtract(&gone.below);
            }
            !node.is_empty()
        });
    }

    /// The members that `other` has too.
    pub(super) fn intersection(&self, other: &Set) -> Set {
        let mut set = Self::default();
        for (element, node) in &self.nodes {
            let Some(theirs) = other.nodes.get(element) else { continue };
            let both =
                Node { member: node.member && theirs.member, below: node.below.intersection(&theirs.below) };
            if !both.is_empty() {
                set.nodes.insert(element.clone(), both);
            }
        }
        set
    }

    /// Removes the member at a path of fields, but not what is below it.
    pub(super) fn remove_member(&mut self, path: &[&str]) {
        self.at_end(path, &mut |node| node.member = false);
    }

    /// Removes the member at a path of fields and all below it.
    pub(super) fn remove_below(&mut self, path: &[&str]) {
        self.at_end(path, &mut |node| *node = Node::default());
    }

    fn at_end(&mut self, path: &[&str], change: &mut dyn FnMut(&mut Node)) {
        let Some((first, rest)) = path.split_first() else { return };
        let element = format!("f:{first}");
        let Some(node) = self.nodes.get_mut(&element) else { return };
        if rest.is_empty() {
            change(node);
        } else {
            node.below.at_end(rest, change);
        }
        if node.is_empty() {
            self.nodes.remove(&element);
        }
    }

    /// Makes the fields of objects members where anything below them is one.
    pub(super) fn with_named_fields(mut self, schema: Option<Schema<'_>>) -> Self {
        let known = schema.filter(|schema| schema.kind() == Kind::Struct);
        for (element, node) in &mut self.nodes {
            let below = match element.strip_prefix("f:") {
                Some(field) => schema.and_then(|schema| schema.field(field)),
                None => schema.and_then(|schema| schema.item()),
            };
            let named = element.starts_with("f:") && known.is_some() && below.is_some();
            node.member |= named && !node.below.is_empty();
            node.below = std::mem::take(&mut node.below).with_named_fields(below);
        }
        self
    }

    /// The paths of all members, as messages show them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut String, paths: &mut Vec<String>) {
        for (element, node) in &self.nodes {
            let length = prefix.len();
            show(element, prefix);
            if node.member {
                paths.push(prefix.clone());
            }
            node.below.collect(prefix, paths);
            prefix.truncate(length);
        }
    }
}

/// A path element in the one form in which it is compared; `None` when it is malformed.
fn canonical(element: &str) -> Option<String> {
    let (kind, text) = element.split_once(':')?;
    match kind {
        "f" => Some(element.to_owned()),
        "i" => text.parse::<i64>().ok().map(|index| format!("i:{index}")),
        "k" => {
            let value: Value = serde_json::from_str(text).ok()?;
            value.as_object().filter(|map| !map.is_empty()).map(|_| format!("k:{value}"))
        }
        "v" => serde_json::from_str::<Value>(text).ok().map(|value| format!("v:{value}")),
        _ => None,
    }
}

/// Appends a path element as messages show it.
fn show(element: &str, path: &mut String) {
    let Some((kind, text)) = element.split_once(':') else { return };
    let _infallible = match kind {
        "f" => write!(path, ".{text}"),
        "i" => write!(path, "[{text}]"),
        "v" => write!(path, "[={text}]"),
        _ => {
            let keys: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let keys: Vec<_> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            write!(path, "[{}]", keys.join(","))
        }
    };
}
