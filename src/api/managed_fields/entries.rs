//! The entries of `metadata.managedFields`: one for each manager, operation, version and subresource.

use serde_json::{Map, Value};

use super::Options;
use super::set::Set;

/// More entries of updates than this are merged.
const MAX_UPDATERS: usize = 10;
/// The manager of merged entries.
const ANCIENT: &str = "ancient-changes";

/// How fields came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who owns a set of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<String>,
    pub(super) fields: Set,
}

impl Entry {
    /// An entry for the request.
    pub(super) fn new(options: &Options<'_>, operation: Operation, fields: Set) -> Self {
        Self {
            manager: options.manager.to_owned(),
            operation,
            api_version: options.api_version.to_owned(),
            subresource: options.subresource.to_owned(),
            time: Some(options.now.to_owned()),
            fields,
        }
    }

    /// Whether both are the same owner. An applier is the same in every version.
    pub(super) fn same_owner(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn parse(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match entry.get("operation")?.as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let fields = match entry.get("fieldsV1") {
            Some(fields) => Set::parse(fields)?,
            None => Set::default(),
        };
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: entry.get("time").and_then(Value::as_str).map(str::to_owned),
            fields,
        })
    }

    fn into_json(self) -> Value {
        let mut map = Map::new();
        let mut put = |name: &str, text: String| {
            if !text.is_empty() {
                map.insert(name.to_owned(), Value::String(text));
            }
        };
        put("manager", self.manager);
        put("apiVersion", self.api_version);
        put("subresource", self.subresource);
        put("time", self.time.unwrap_or_default());
        put("fieldsType", "FieldsV1".to_owned());
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        put("operation", operation.to_owned());
        map.insert("fieldsV1".to_owned(), self.fields.to_json());
        Value::Object(map)
    }
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries(pub(super) Vec<Entry>);

impl Entries {
    /// Reads `metadata.managedFields`; `None` when an entry is malformed.
    pub(super) fn parse(list: &[Value]) -> Option<Self> {
        list.iter().map(Entry::parse).collect::<Option<Vec<_>>>().map(Self)
    }

    /// The entries as JSON: appliers first, then by time and name.
    pub(super) fn into_json(mut self) -> Value {
        self.0.retain(|entry| !entry.fields.is_empty());
        self.0.sort_by(|a, b| {
            let key = |e: &Entry| (e.operation, e.time.clone().unwrap_or_default());
            let names = |e: &Entry| (e.manager.clone(), e.api_version.clone(), e.subresource.clone());
            key(a).cmp(&key(b)).then_with(|| names(a).cmp(&names(b)))
        });
        Value::Array(self.0.into_iter().map(Entry::into_json).collect())
    }

    /// The entry of the same owner.
    pub(super) fn find(&self, owner: &Entry) -> Option<usize> {
        self.0.iter().position(|entry| entry.same_owner(owner))
    }

    /// Merges the oldest entries of updates, by version, until there are few enough.
    pub(super) fn cap_updaters(&mut self) {
        let mut updaters: Vec<usize> =
            (0..self.0.len()).filter(|i| self.0[*i].operation == Operation::Update).collect();
        let mut count = updaters.len();
        if count <= MAX_UPDATERS {
            return;
        }
        updaters.sort_by_key(|i| (self.0[*i].time.clone(), self.0[*i].manager.clone()));
        // For each version, where its merged entry is.
        let mut buckets: Vec<usize> = Vec::new();
        let mut merged = Vec::new();
        for i in updaters {
            if count <= MAX_UPDATERS {
                break;
            }
            let version = self.0[i].api_version.clone();
            match buckets.iter().find(|bucket| self.0[**bucket].api_version == version).copied() {
                None => buckets.push(i),
                Some(bucket) => {
                    let fields = std::mem::take(&mut self.0[i].fields);
                    let time = self.0[i].time.clone();
                    let target = &mut self.0[bucket];
                    target.manager = ANCIENT.to_owned();
                    target.subresource = String::new();
                    target.time = time;
                    target.fields.union(fields);
                    merged.push(i);
                    count -= 1;
                }
            }
        }
        let mut i = 0;
        self.0.retain(|_| {
            i += 1;
            !merged.contains(&(i - 1))
        });
    }
}
