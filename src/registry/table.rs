//! Printed tables: columns and cells as `kubectl get` shows them.

pub mod duration;
pub mod rows;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// A column of a printed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading; clients print it in capitals.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the column with the object's name.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 is always shown, 1 only in wide output.
    pub priority: i32,
}

/// A column that is always shown.
pub const fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", description, priority: 0 }
}

/// A column of wide output.
pub const fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", description, priority: 1 }
}

/// The name column.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within its scope and identifies the object.",
    priority: 0,
};

/// The age column.
pub const AGE: Column = column("Age", "string", "Time since the object was created.");

/// The columns of kinds that say nothing else.
pub const PLAIN: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        description: "When the server accepted the object.",
        priority: 0,
    },
];

/// The cells of [`PLAIN`].
pub fn plain_cells(meta: &ObjectMeta, _now: Timestamp) -> Vec<Value> {
    let created =
        meta.creation_timestamp.as_ref().map(|time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    vec![meta.name.clone().into(), created.into()]
}

/// A map of labels as text, `<none>` when it is empty.
pub fn selector_text(labels: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// The age cell.
pub fn age_cell(meta: &ObjectMeta, now: Timestamp) -> Value {
    duration::age(meta.creation_timestamp.as_ref().map(|time| time.0), now).into()
}

/// The name cell.
pub fn name_cell(meta: &ObjectMeta) -> Value {
    meta.name.clone().into()
}

/// A label selector as text, `<none>` when it selects everything.
pub fn label_selector_text(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> String {
    let parsed = crate::api::selector::LabelSelector::from_meta(selector);
    let text = parsed.map(|selector| selector.to_string()).unwrap_or_default();
    if text.is_empty() { "<none>".into() } else { text }
}

/// Names or numbers side by side, `<none>` when there are none.
pub fn list_text(items: &[impl AsRef<str>]) -> String {
    let texts: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    if texts.is_empty() { "<none>".into() } else { texts.join(",") }
}

/// `<unset>` in the place of what nobody has said.
pub fn or_unset(text: Option<&String>) -> Value {
    text.map_or("<unset>", String::as_str).into()
}
