//! The paths and operations of served kinds, apart from how a version of OpenAPI writes them.

use super::{Served, ServedSubresource, group_path};
use crate::api::schema::Schemas;

/// A parameter that is not a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) kind: &'static str,
    pub(super) description: &'static str,
}

const fn query(name: &'static str, kind: &'static str, description: &'static str) -> Parameter {
    Parameter { name, place: "query", kind, description }
}

const fn path(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, place: "path", kind: "string", description }
}

const NAME: Parameter = path("name", "The name of the object.");
const NAMESPACE: Parameter = path("namespace", "The namespace of the object.");
const PRETTY: Parameter = query("pretty", "string", "Whether to print the answer for people to read.");

const LIST: &[Parameter] = &[
    query("allowWatchBookmarks", "boolean", "Whether the watch may send bookmarks."),
    query("continue", "string", "Where to go on with a list that was cut off by its limit."),
    query("fieldSelector", "string", "Selects objects by their fields."),
    query("labelSelector", "string", "Selects objects by their labels."),
    query("limit", "integer", "The most objects to answer with."),
    query("resourceVersion", "string", "The resource version to list at or to watch from."),
    query("resourceVersionMatch", "string", "How resourceVersion applies to a list."),
    query("sendInitialEvents", "boolean", "Whether a watch begins with the objects that there are."),
    query("timeoutSeconds", "integer", "How long a list or watch may take."),
    query("watch", "boolean", "Whether to watch for changes instead of listing."),
];
const DRY_RUN: Parameter =
    query("dryRun", "string", "When it is All, the request is processed in full, but nothing is stored.");
const FIELD_MANAGER: Parameter =
    query("fieldManager", "string", "The name of who makes the change; required for server-side apply.");
const FIELD_VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: Ignore, Warn or Strict.",
);
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] = &[
    DRY_RUN,
    FIELD_MANAGER,
    FIELD_VALIDATION,
    query("force", "boolean", "Whether server-side apply takes over fields that others own."),
];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    query("gracePeriodSeconds", "integer", "How long the object may take to end; 0 deletes at once."),
    query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    query("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
];
const LOG: &[Parameter] = &[
    query("container", "string", "The container whose log to read."),
    query("follow", "boolean", "Whether to go on as the log grows."),
    query("limitBytes", "integer", "The most bytes to read."),
    query("previous", "boolean", "Whether to read the log of the instance before."),
    query("sinceSeconds", "integer", "How old the lines may be."),
    query("tailLines", "integer", "How many lines from the end to read."),
    query("timestamps", "boolean", "Whether to put the time before each line."),
];

/// What a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// The object; the name of its definition.
    Object(String),
    Patch,
    DeleteOptions,
}

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Definition(String),
    Text,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) description: String,
    pub(super) tag: String,
    /// Group, version and kind.
    pub(super) kind: (String, String, String),
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Body,
    pub(super) answer: Answer,
    pub(super) codes: &'static [(&'static str, &'static str)],
    pub(super) watchable: bool,
}

/// One path with its operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) path: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) operations: Vec<Operation>,
}

const OK: &[(&str, &str)] = &[("200", "OK")];
const UPDATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const DELETED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

/// The paths of one kind.
pub(super) fn of(row: &Served) -> Vec<Path> {
    let maker = Maker { row, base: format!("/{}", group_path(row)), names: Names::of(row) };
    let mut paths = maker.collection();
    paths.extend(maker.item());
    paths.extend(row.subresources.iter().filter_map(|sub| maker.subresource(sub)));
    paths
}

/// `rbac.authorization.k8s.io` is `rbacAuthorization` in tags and `RbacAuthorization` in operations.
struct Names {
    tag: String,
    group_version: String,
}

impl Names {
    fn of(row: &Served) -> Self {
        let group = if row.group.is_empty() { "core" } else { row.group.trim_end_matches(".k8s.io") };
        let group: String = group.split('.').map(capital).collect();
        let mut tag = group.clone();
        if let Some(first) = tag.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        Self {
            tag: format!("{tag}_{}", row.version),
            group_version: format!("{group}{}", capital(&row.version)),
        }
    }
}

fn capital(word: &str) -> String {
    let mut word = word.replace('-', "");
    if let Some(first) = word.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    word
}

fn definition(group: &str, version: &str, kind: &str) -> String {
    let found = Schemas::builtin().definition_name(group, version, kind);
    found.map_or_else(|| format!("{group}.{version}.{kind}"), str::to_owned)
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

struct Maker<'a> {
    row: &'a Served,
    base: String,
    names: Names,
}

impl Maker<'_> {
    fn has(&self, verb: &str) -> bool {
        self.row.verbs.iter().any(|v| v == verb)
    }

    fn scope(&self) -> &'static str {
        if self.row.namespaced { "Namespaced" } else { "" }
    }

    fn kind(&self) -> (String, String, String) {
        (self.row.group.clone(), self.row.version.clone(), self.row.kind.clone())
    }

    fn object(&self) -> String {
        if let Some(own) = &self.row.own {
            return own.name.clone();
        }
        definition(&self.row.group, &self.row.version, &self.row.kind)
    }

    fn operation(&self, method: &'static str, action: &'static str, verb: &str, suffix: &str) -> Operation {
        let group_version = &self.names.group_version;
        Operation {
            method,
            action,
            id: format!("{verb}{group_version}{}{}{suffix}", self.scope(), self.row.kind),
            description: String::new(),
            tag: self.names.tag.clone(),
            kind: self.kind(),
            parameters: Vec::new(),
            body: Body::None,
            answer: Answer::Definition(self.object()),
            codes: OK,
            watchable: false,
        }
    }

    fn list(&self, id: String) -> Operation {
        let list = match &self.row.own {
            Some(own) => format!("{}List", own.name),
            None => definition(&self.row.group, &self.row.version, &format!("{}List", self.row.kind)),
        };
        Operation {
            id,
            description: format!("list or watch objects of kind {}", self.row.kind),
            parameters: LIST.to_vec(),
            answer: Answer::Definition(list),
            watchable: self.has("watch"),
            ..self.operation("get", "list", "list", "")
        }
    }

    fn collection(&self) -> Vec<Path> {
        let row = self.row;
        let (plural, kind, group_version) = (&row.plural, &row.kind, &self.names.group_version);
        let mut operations = Vec::new();
        if self.has("list") {
            operations.push(self.list(format!("list{group_version}{}{kind}", self.scope())));
        }
        if self.has("create") {
            operations.push(Operation {
                description: format!("create a {kind}"),
                parameters: WRITE.to_vec(),
                body: Body::Object(self.object()),
                codes: CREATED,
                ..self.operation("post", "post", "create", "")
            });
        }
        if self.has("deletecollection") {
            operations.push(Operation {
                id: format!("delete{group_version}Collection{}{kind}", self.scope()),
                description: format!("delete collection of {kind}"),
                parameters: DELETE.iter().chain(LIST).filter(|p| !p.name.contains("atch")).copied().collect(),
                body: Body::DeleteOptions,
                answer: Answer::Definition(STATUS.to_owned()),
                ..self.operation("delete", "deletecollection", "delete", "")
            });
        }
        let mut paths = Vec::new();
        if row.namespaced && self.has("list") {
            let operations = vec![self.list(format!("list{group_version}{kind}ForAllNamespaces"))];
            let path = format!("{}/{plural}", self.base);
            paths.push(Path { path, parameters: vec![PRETTY], operations });
        }
        if !operations.is_empty() {
            let parameters = if row.namespaced { vec![NAMESPACE, PRETTY] } else { vec![PRETTY] };
            paths.push(Path { path: format!("{}/{plural}", self.scoped()), parameters, operations });
        }
        paths
    }

    /// The path in front of the plural.
    fn scoped(&self) -> String {
        if self.row.namespaced {
            format!("{}/namespaces/{{namespace}}", self.base)
        } else {
            self.base.clone()
        }
    }

    fn item_parameters(&self) -> Vec<Parameter> {
        if self.row.namespaced { vec![NAME, NAMESPACE, PRETTY] } else { vec![NAME, PRETTY] }
    }

    fn item(&self) -> Option<Path> {
        let kind = &self.row.kind;
        let mut operations = self.object_operations(&self.row.verbs, "", &self.object(), &self.kind());
        if self.has("delete") {
            operations.push(Operation {
                description: format!("delete a {kind}"),
                parameters: DELETE.to_vec(),
                body: Body::DeleteOptions,
                codes: DELETED,
                ..self.operation("delete", "delete", "delete", "")
            });
        }
        let path = format!("{}/{}/{{name}}", self.scoped(), self.row.plural);
        (!operations.is_empty()).then(|| Path { path, parameters: self.item_parameters(), operations })
    }

    /// Reading, replacing and patching an object or a part of it.
    fn object_operations(
        &self,
        verbs: &[String],
        part: &str,
        object: &str,
        kind: &(String, String, String),
    ) -> Vec<Operation> {
        let has = |verb: &str| verbs.iter().any(|v| v == verb);
        let suffix = capital(part);
        let what =
            format!("{part}{}the specified {}", if part.is_empty() { "" } else { " of " }, self.row.kind);
        let with = |operation: Operation| Operation {
            kind: kind.clone(),
            answer: Answer::Definition(object.to_owned()),
            ..operation
        };
        let mut operations = Vec::new();
        if has("get") {
            operations.push(with(Operation {
                description: format!("read {what}"),
                ..self.operation("get", "get", "read", &suffix)
            }));
        }
        if has("update") {
            operations.push(with(Operation {
                description: format!("replace {what}"),
                parameters: WRITE.to_vec(),
                body: Body::Object(object.to_owned()),
                codes: UPDATED,
                ..self.operation("put", "put", "replace", &suffix)
            }));
        }
        if has("patch") {
            operations.push(with(Operation {
                description: format!("partially update {what}"),
                parameters: PATCH.to_vec(),
                body: Body::Patch,
                codes: UPDATED,
                ..self.operation("patch", "patch", "patch", &suffix)
            }));
        }
        operations
    }

    fn subresource(&self, sub: &ServedSubresource) -> Option<Path> {
        let (group, version, kind) = &sub.body;
        let of_itself = self.row.own.is_some() && *kind == self.row.kind;
        let object = if of_itself { self.object() } else { definition(group, version, kind) };
        let has = |verb: &str| sub.verbs.iter().any(|v| v == verb);
        let connects =
            has("connect") || matches!(sub.name.as_str(), "exec" | "attach" | "portforward" | "proxy");
        let mut operations = if connects {
            ["get", "post"].map(|method| self.connect(method, &sub.name)).to_vec()
        } else {
            self.object_operations(&sub.verbs, &sub.name, &object, &sub.body)
        };
        if sub.name == "log" {
            for operation in &mut operations {
                operation.answer = Answer::Text;
                operation.kind = self.kind();
                operation.parameters = LOG.to_vec();
            }
        }
        if has("create") && !connects {
            operations.push(Operation {
                description: format!("create {} of a {}", sub.name, self.row.kind),
                kind: sub.body.clone(),
                parameters: WRITE.to_vec(),
                body: Body::Object(object.clone()),
                answer: Answer::Definition(object),
                codes: CREATED,
                ..self.operation("post", "post", "create", &capital(&sub.name))
            });
        }
        let path = format!("{}/{}/{{name}}/{}", self.scoped(), self.row.plural, sub.name);
        (!operations.is_empty()).then(|| Path { path, parameters: self.item_parameters(), operations })
    }

    fn connect(&self, method: &'static str, part: &str) -> Operation {
        let verb = capital(method);
        let options = format!("{}{}Options", self.row.kind, part_name(part));
        Operation {
            id: format!(
                "connect{}{verb}{}{}{}",
                self.names.group_version,
                self.scope(),
                self.row.kind,
                capital(part)
            ),
            description: format!("connect {} requests to {part} of {}", method.to_uppercase(), self.row.kind),
            kind: (self.row.group.clone(), self.row.version.clone(), options),
            answer: Answer::Text,
            ..self.operation(method, "connect", "connect", "")
        }
    }
}

fn part_name(part: &str) -> String {
    if part == "portforward" { "PortForward".to_owned() } else { capital(part) }
}
