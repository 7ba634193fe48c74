//! Which file names items of which other file, and whether such arrows form a circle.
//!
//! An arrow goes to the file that defines an item, wherever it is re-exported. A `mod` declaration and a `pub use` are
//! no arrows: a parent that only declares and re-exports its children depends on none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

/// A path of module names from the root of a crate, without the name of the crate.
type ModulePath = Vec<String>;

/// The files of one crate.
pub(crate) struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

/// A module that has a file of its own.
struct Module {
    file: String,
    items: Vec<Item>,
    /// The names that `use` brings here, with their paths.
    imports: BTreeMap<String, Vec<String>>,
}

impl Crate {
    /// Reads a crate from its root, as the compiler does, without its tests.
    pub(crate) fn read(source_folder: &Path, root: &str) -> Self {
        let mut found = Self { modules: BTreeMap::new() };
        found.read_module(source_folder, root.to_owned(), Vec::new());
        found
    }

    fn read_module(&mut self, source_folder: &Path, file: String, path: ModulePath) {
        let text = fs::read_to_string(source_folder.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let items: Vec<Item> = parsed.items.into_iter().filter(|item| !is_test(item)).collect();
        let is_folder = path.is_empty() || file.ends_with("/mod.rs");
        let (parent, name) = file.rsplit_once('/').unwrap_or(("", &file));
        let folder = if is_folder { parent.to_owned() } else { join(parent, name.trim_end_matches(".rs")) };
        for item in &items {
            let Item::Mod(module) = item else { continue };
            if module.content.is_some() {
                continue;
            }
            let name = module.ident.to_string();
            let [flat, nested] = [format!("{name}.rs"), format!("{name}/mod.rs")].map(|file| join(&folder, &file));
            let child = if source_folder.join(&flat).exists() { flat } else { nested };
            self.read_module(source_folder, child, [path.as_slice(), &[name]].concat());
        }
        let mut imports = BTreeMap::new();
        for item in &items {
            if let Item::Use(item) = item {
                for (name, target) in targets(item) {
                    imports.insert(name, target);
                }
            }
        }
        self.modules.insert(path, Module { file, items, imports });
    }

    /// From each file to the files whose items it names.
    pub(crate) fn arrows(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        self.modules.iter().map(|(path, module)| (module.file.as_str(), self.named_files(path, module))).collect()
    }

    /// The types that each file defines, those within functions included.
    pub(crate) fn types(&self) -> impl Iterator<Item = (&str, String)> {
        self.modules.values().flat_map(|module| {
            let mut types = Types(Vec::new());
            for item in &module.items {
                types.visit_item(item);
            }
            types.0.into_iter().map(|name| (module.file.as_str(), name))
        })
    }

    fn named_files(&self, path: &ModulePath, module: &Module) -> BTreeSet<&str> {
        let mut names = Names(Vec::new());
        for item in &module.items {
            names.visit_item(item);
        }
        let files = names.0.iter().filter_map(|name| self.resolve(path, name, 0));
        files.filter(|file| *file != module.file).collect()
    }

    /// The file that defines what a module calls by a name of several parts, if it is one of this crate.
    fn resolve(&self, from: &ModulePath, name: &[String], depth: usize) -> Option<&str> {
        assert!(depth < 20, "{name:?} leads round in circles");
        let mut here = from.clone();
        let mut rest = name;
        let mut is_first = true;
        while let Some((part, after)) = rest.split_first() {
            match part.as_str() {
                "crate" => here = Vec::new(),
                "self" => {}
                "super" => drop(here.pop()),
                _ => {
                    let module = &self.modules[&here];
                    let child = [here.as_slice(), std::slice::from_ref(part)].concat();
                    if let Some(target) = module.imports.get(part).filter(|target| *target != name) {
                        return self.resolve(&here, &[target.as_slice(), after].concat(), depth + 1);
                    }
                    if !self.modules.contains_key(&child) {
                        // The name of another crate, or of an item of this file.
                        return (!is_first).then_some(&module.file);
                    }
                    here = child;
                }
            }
            rest = after;
            is_first = false;
        }
        // A module by itself: the names that are taken from it tell more.
        None
    }
}

fn join(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

/// Whether an item is compiled for tests only.
fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return false,
    };
    (has_cfg(attributes, "test") || has_cfg(attributes, "doctest")) && !has_cfg(attributes, "not")
}

/// Whether one of the attributes is a `cfg` with this word in it.
fn has_cfg(attributes: &[Attribute], word: &str) -> bool {
    fn contains(tokens: TokenStream, word: &str) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(found) => found == word,
            TokenTree::Group(group) => contains(group.stream(), word),
            _ => false,
        })
    }
    let configurations = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    configurations
        .filter_map(|attribute| attribute.meta.require_list().ok())
        .any(|list| contains(list.tokens.clone(), word))
}

/// The names that a `use` brings, and what they stand for.
fn targets(item: &ItemUse) -> Vec<(String, Vec<String>)> {
    fn walk(tree: &UseTree, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
        let with = |part: &syn::Ident| [before, &[part.to_string()]].concat();
        match tree {
            UseTree::Path(path) => walk(&path.tree, &with(&path.ident), found),
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, before, found)),
            UseTree::Name(name) if name.ident == "self" => {
                found.push((before.last().unwrap().clone(), before.to_vec()));
            }
            UseTree::Name(name) => found.push((name.ident.to_string(), with(&name.ident))),
            UseTree::Rename(rename) if rename.ident == "self" => {
                found.push((rename.rename.to_string(), before.to_vec()));
            }
            UseTree::Rename(rename) => {
                let name =
                    if rename.rename == "_" { format!("_ as {}", rename.ident) } else { rename.rename.to_string() };
                found.push((name, with(&rename.ident)));
            }
            UseTree::Glob(_) => found.push((format!("{}::*", before.join("::")), [before, &["*".to_owned()]].concat())),
        }
    }
    let mut found = Vec::new();
    walk(&item.tree, &[], &mut found);
    found
}

/// Gathers all names of several parts, and names of one part, which an import may stand for.
struct Names(Vec<Vec<String>>);

impl Names {
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut name: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(part) => {
                    if colons != 2 {
                        self.0.push(std::mem::take(&mut name));
                    }
                    name.push(part.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.0.push(std::mem::take(&mut name));
                    self.add_tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.0.push(std::mem::take(&mut name));
                    colons = 0;
                }
            }
        }
        self.0.push(name);
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_test(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if matches!(item.vis, Visibility::Inherited) {
            self.0.extend(targets(item).into_iter().map(|(_, target)| target));
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        self.visit_path(&item.path);
        self.add_tokens(item.tokens.clone());
    }
}

/// Gathers the names of types that are defined. Of two that exclude each other by `cfg`, it takes the one without `not`.
struct Types(Vec<String>);

impl<'a> Visit<'a> for Types {
    fn visit_item(&mut self, item: &'a Item) {
        let found = match item {
            Item::Struct(item) => Some((&item.ident, &item.attrs)),
            Item::Enum(item) => Some((&item.ident, &item.attrs)),
            Item::Trait(item) => Some((&item.ident, &item.attrs)),
            Item::Type(item) => Some((&item.ident, &item.attrs)),
            _ => None,
        };
        if let Some((name, attributes)) = found
            && !has_cfg(attributes, "not")
        {
            self.0.push(name.to_string());
        }
        if !is_test(item) {
            visit::visit_item(self, item);
        }
    }
}

/// The groups of files that reach each other along arrows.
pub(crate) fn circles<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reachable = |from: &'a str| -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            open.extend(arrows[file].iter().filter(|next| found.insert(**next)));
        }
        found
    };
    let reach: BTreeMap<&'a str, BTreeSet<&'a str>> = arrows.keys().map(|file| (*file, reachable(file))).collect();
    let mut circles: Vec<Vec<&'a str>> = Vec::new();
    for (file, reached) in &reach {
        let circle: Vec<&'a str> = reached.iter().copied().filter(|other| reach[other].contains(file)).collect();
        if circle.first() == Some(file) {
            circles.push(circle);
        }
    }
    circles
}
