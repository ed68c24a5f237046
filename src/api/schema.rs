//! Schemas: what each field is, and how lists and maps merge. Patches, server-side apply, field validation and
//! OpenAPI all read them.
//!
//! The built-in kinds' schemas are made at build time (`build/schema.rs`) and inflated once, into tables that
//! hold no description and no tree of values.

mod arena;
mod check;
mod load;
pub mod openapi;
mod structural;

use std::sync::OnceLock;

use arena::{Arena, NodeId, Shape};
pub use arena::{ListType, Scalar, Strategy};
pub use check::Report;
pub use load::LoadError;

/// A set of schemas, found by kind or by name.
#[derive(Debug)]
pub struct Schemas {
    arena: Arena,
}

/// The schema of a kind, of a field of it, or of what is in a list or map. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    arena: &'a Arena,
    node: NodeId,
    strategy: Strategy,
    merge_key: Option<arena::Name>,
}

/// What a schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object with known fields.
    Struct,
    /// An object whose keys are data.
    Map,
    /// A list.
    List,
    /// A string, number or boolean.
    Scalar(Scalar),
    /// Anything: fields are not known and are kept.
    Any,
}

static SHAPES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shapes.json.gz"));

impl Schemas {
    /// The schemas of the built-in kinds.
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Schemas> = OnceLock::new();
        BUILTIN.get_or_init(|| Self::inflate(SHAPES).expect("the embedded schemas are made at build time"))
    }

    fn inflate(bytes: &[u8]) -> Result<Self, LoadError> {
        Self::load(std::io::BufReader::new(flate2::read::GzDecoder::new(bytes)))
    }

    /// Reads schemas from a JSON object of definitions, as in an OpenAPI v2 document.
    pub fn load(definitions: impl std::io::Read) -> Result<Self, LoadError> {
        Ok(Self { arena: load::load(definitions)? })
    }

    /// The schema of a kind.
    pub fn for_gvk(&self, group: &str, version: &str, kind: &str) -> Option<Schema<'_>> {
        self.arena.kind(group, version, kind).map(|node| Schema::new(&self.arena, node))
    }

    /// The schema of one kind of custom resources, which [`Schemas::root`] gives back.
    pub fn of_custom(schema: &super::structural::Structural) -> Self {
        Self { arena: structural::arena(schema) }
    }

    /// The schema of the kind that [`Schemas::of_custom`] was made for.
    pub fn root(&self) -> Option<Schema<'_>> {
        self.definition(structural::ROOT)
    }

    /// The schema of a kind, by its `apiVersion`.
    pub fn for_kind(&self, api_version: &str, kind: &str) -> Option<Schema<'_>> {
        let (group, version) = super::meta::group_version(api_version);
        self.for_gvk(group, version, kind)
    }

    /// The schema of a definition, such as `io.k8s.api.core.v1.PodSpec`.
    pub fn definition(&self, name: &str) -> Option<Schema<'_>> {
        self.arena.definition(name).map(|node| Schema::new(&self.arena, node))
    }

    /// The name of the definition of a kind.
    pub fn definition_name(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        self.arena.definition_name(group, version, kind)
    }
}

impl<'a> Schema<'a> {
    fn new(arena: &'a Arena, node: NodeId) -> Self {
        Self { arena, node, strategy: Strategy::default(), merge_key: None }
    }

    fn shape(&self) -> Shape {
        self.arena.shape(self.node)
    }

    /// What is described.
    pub fn kind(&self) -> Kind {
        match self.shape() {
            Shape::Struct { .. } => Kind::Struct,
            Shape::Map { .. } => Kind::Map,
            Shape::List { .. } => Kind::List,
            Shape::Scalar(scalar) => Kind::Scalar(scalar),
            Shape::Any => Kind::Any,
        }
    }

    /// The schema of what is under `name` in an object: a known field, a map's value, or anything.
    pub fn field(&self, name: &str) -> Option<Schema<'a>> {
        match self.shape() {
            Shape::Struct { fields, rest, .. } => {
                let Some(field) = self.arena.field(fields, name) else {
                    return rest.map(|node| Schema::new(self.arena, node));
                };
                Some(Schema {
                    arena: self.arena,
                    node: field.node,
                    strategy: field.strategy,
                    merge_key: field.merge_key,
                })
            }
            Shape::Map { value, .. } => Some(Schema::new(self.arena, value)),
            Shape::Any => Some(*self),
            Shape::List { .. } | Shape::Scalar(_) => None,
        }
    }

    /// The known fields, sorted by name.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, Schema<'a>)> + use<'a> {
        let arena = self.arena;
        let fields = match self.shape() {
            Shape::Struct { fields, .. } => arena.fields(fields),
            _ => &[],
        };
        fields.iter().map(move |field| {
            let schema =
                Schema { arena, node: field.node, strategy: field.strategy, merge_key: field.merge_key };
            (arena.name(field.name), schema)
        })
    }

    /// The schema of a list's items.
    pub fn item(&self) -> Option<Schema<'a>> {
        match self.shape() {
            Shape::List { item, .. } => Some(Schema::new(self.arena, item)),
            Shape::Any => Some(*self),
            _ => None,
        }
    }

    /// How a list merges; atomic for what is no list.
    pub fn list_type(&self) -> ListType {
        match self.shape() {
            Shape::List { list_type, .. } => list_type,
            _ => ListType::Atomic,
        }
    }

    /// The fields that tell the items of a list of type map apart.
    pub fn map_keys(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let arena = self.arena;
        let keys = match self.shape() {
            Shape::List { keys, .. } => arena.keys(keys),
            _ => &[],
        };
        keys.iter().map(move |key| arena.name(*key))
    }

    /// Whether an object, map or list is owned and replaced as a whole.
    pub fn is_atomic(&self) -> bool {
        match self.shape() {
            Shape::Struct { atomic, .. } | Shape::Map { atomic, .. } => atomic,
            Shape::List { list_type, .. } => list_type == ListType::Atomic,
            Shape::Scalar(_) => true,
            Shape::Any => false,
        }
    }

    /// Whether fields that the schema does not know are kept.
    pub fn preserves_unknown(&self) -> bool {
        matches!(self.shape(), Shape::Any)
    }

    /// The strategy of strategic merge patch for this field.
    pub fn patch_strategy(&self) -> Strategy {
        self.strategy
    }

    /// The field by which strategic merge patch matches the items of this list.
    pub fn patch_merge_key(&self) -> Option<&'a str> {
        self.merge_key.map(|key| self.arena.name(key))
    }

    /// What a field of this object means when it is left out of a list key.
    pub fn key_default(&self, field: &str) -> Option<&'a str> {
        match self.shape() {
            Shape::Struct { fields, .. } => {
                self.arena.field(fields, field)?.default.map(|name| self.arena.name(name))
            }
            _ => None,
        }
    }

    /// Whether the field must be there.
    pub fn requires(&self, field: &str) -> bool {
        match self.shape() {
            Shape::Struct { fields, .. } => self.arena.field(fields, field).is_some_and(|f| f.required),
            _ => false,
        }
    }
}

impl std::fmt::Debug for Schema<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema").field("shape", &self.shape()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
