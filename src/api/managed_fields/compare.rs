//! What changed between two versions of an object, as sets of fields.

use serde_json::{Map, Value};

use super::extract::{Granularity, element, granularity};
use super::set::Set;
use crate::api::schema::{ListType, Schema};

/// The fields that differ.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Comparison {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

impl Comparison {
    pub(super) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Added and modified fields.
    pub(super) fn written(self) -> Set {
        let mut written = self.added;
        written.union(self.modified);
        written
    }
}

/// A path in the making: elements are written out only where something differs.
enum Step<'a> {
    Field(&'a str),
    Item(&'a str),
}

impl Step<'_> {
    fn element(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Item(element) => (*element).to_owned(),
        }
    }
}

/// Compares two objects.
pub(super) fn compare(old: &Value, new: &Value, schema: Schema<'_>) -> Comparison {
    let mut walker = Walker { path: Vec::new(), found: Comparison::default() };
    walker.visit(Some(old), Some(new), Some(schema));
    walker.found
}

struct Walker<'a> {
    path: Vec<Step<'a>>,
    found: Comparison,
}

enum Change {
    Added,
    Modified,
    Removed,
}

impl Walker<'_> {
    fn note(&mut self, change: &Change) {
        let set = match change {
            Change::Added => &mut self.found.added,
            Change::Modified => &mut self.found.modified,
            Change::Removed => &mut self.found.removed,
        };
        set.insert(self.path.iter().map(Step::element));
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, Some(_)) => self.note(&Change::Added),
            (Some(_), None) => self.note(&Change::Removed),
            (Some(old), Some(new)) if old != new => self.note(&Change::Modified),
            _ => {}
        }
    }
}

impl<'a> Walker<'a> {
    fn visit(&mut self, old: Option<&'a Value>, new: Option<&'a Value>, schema: Option<Schema<'a>>) {
        let says = |value: &&Value| !value.is_null();
        let Some(some) = new.filter(says).or(old.filter(says)).or(new).or(old) else { return };
        // What is null is of any type, and empty.
        let same_type = match (old.filter(says), new.filter(says)) {
            (Some(old), Some(new)) => std::mem::discriminant(old) == std::mem::discriminant(new),
            _ => true,
        };
        match granularity(schema, some) {
            Granularity::Fields if same_type => {
                let (old_map, new_map) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
                if is_empty(old_map.map(Map::len)) && is_empty(new_map.map(Map::len)) {
                    return self.leaf(old, new);
                }
                self.fields(old_map, new_map, schema);
                self.container(old, new);
            }
            Granularity::Items(list_type) if same_type => {
                let (old_list, new_list) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
                if is_empty(old_list.map(Vec::len)) && is_empty(new_list.map(Vec::len)) {
                    return self.leaf(old, new);
                }
                if old_list == new_list {
                    return;
                }
                let Some(list) = schema else { return };
                if self.items(old_list, new_list, list, list_type).is_none() {
                    return self.leaf(old, new);
                }
                self.container(old, new);
            }
            _ => self.leaf(old, new),
        }
    }

    /// An object or list that came or went as a whole.
    fn container(&mut self, old: Option<&Value>, new: Option<&Value>) {
        if !self.path.is_empty() {
            self.leaf(old.map(|_| &Value::Null), new.map(|_| &Value::Null));
        }
    }

    fn fields(
        &mut self,
        old: Option<&'a Map<String, Value>>,
        new: Option<&'a Map<String, Value>>,
        schema: Option<Schema<'a>>,
    ) {
        let gone =
            old.into_iter().flatten().filter(|(name, _)| !new.is_some_and(|new| new.contains_key(*name)));
        let gone: Vec<_> = gone.map(|(name, value)| (name, Some(value), None)).collect();
        let here = new.into_iter().flatten().map(|(name, value)| {
            let before = old.and_then(|old| old.get(name));
            (name, before, Some(value))
        });
        for (name, old, new) in here.chain(gone) {
            self.path.push(Step::Field(name));
            self.visit(old, new, schema.and_then(|schema| schema.field(name)));
            self.path.pop();
        }
    }

    /// Compares item by item; `None` when items cannot be told apart.
    fn items(
        &mut self,
        old: Option<&'a Vec<Value>>,
        new: Option<&'a Vec<Value>>,
        list: Schema<'a>,
        list_type: ListType,
    ) -> Option<()> {
        let index = |items: Option<&'a Vec<Value>>| {
            let items = items.into_iter().flatten();
            let keyed = items.map(|item| Some((element(item, list, list_type).ok()?, item)));
            keyed.collect::<Option<Vec<(String, &'a Value)>>>()
        };
        let (old, new) = (index(old)?, index(new)?);
        let find = |items: &[(String, &'a Value)], wanted: &str| {
            items.iter().find(|(element, _)| element == wanted).map(|(_, item)| *item)
        };
        for (element, item) in &new {
            self.item(element, find(&old, element), Some(item), list);
        }
        for (element, item) in &old {
            if find(&new, element).is_none() {
                self.item(element, Some(item), None, list);
            }
        }
        Some(())
    }

    fn item(&mut self, element: &str, old: Option<&'a Value>, new: Option<&'a Value>, list: Schema<'a>) {
        // The walker of the item lives as long as its path element, which is shorter than this walker.
        let mut below = Walker { path: vec![Step::Item(element)], found: Comparison::default() };
        below.visit(old, new, list.item());
        let found = below.found;
        if found.is_same() {
            return;
        }
        let path: Vec<String> = self.path.iter().map(Step::element).collect();
        self.found.added.union(found.added.under(&path));
        self.found.modified.union(found.modified.under(&path));
        self.found.removed.union(found.removed.under(&path));
    }
}

fn is_empty(len: Option<usize>) -> bool {
    len.is_none_or(|len| len == 0)
}
