//! A component whose functions wasmtime finds fast.
//!
//! At each call wasmtime looks the function up again: where a module defines it, in the tables of
//! that module's code, which costs a lookup's decision a tenth of its instructions and of the
//! cache lines that it touches. A function that a module imports is found in place. So a module is
//! put into the component that imports the functions which decide and exports them again, and the
//! component takes them from there. It runs no code of its own, neither in a call nor before.

use std::ops::Range;

use wasm_encoder::{
    ComponentSection as _, ComponentSectionId, Encode as _, EntityType, ExportKind, ExportSection,
    ImportSection, InstanceSection, Module, ModuleArg, ModuleSection, RawSection, TypeSection,
    ValType,
};
use wasmparser::{
    ComponentAlias, ComponentAliasSectionReader, ComponentExternalKind, ComponentOuterAliasKind,
    ComponentTypeRef, ExternalKind, Parser, Payload,
};

/// The functions that decide, as a core module exports them, and what they take: the canonical
/// ABI's flattening of what `wit/` says, for each version of the world. Each returns one pointer.
const RELAYED: [(&str, &[ValType]); 4] = [
    ("bazaar:policy/policy@1.0.0#on-request", &REQUEST),
    ("bazaar:policy/policy@1.0.0#on-outcome", &BY_POINTER),
    ("bazaar:policy/policy@1.1.0#on-request", &REQUEST),
    ("bazaar:policy/policy@1.1.0#on-outcome", &BY_POINTER),
];

const REQUEST: [ValType; 9] = [
    ValType::I32, // method
    ValType::I32, // target
    ValType::I32,
    ValType::I32, // headers
    ValType::I32,
    ValType::I32, // body
    ValType::I32,
    ValType::I32,
    ValType::I64, // now-ms
];

/// Of more than fits the flat form: where it is.
const BY_POINTER: [ValType; 1] = [ValType::I32];

/// What the relay imports the functions from.
const ORIGIN: &str = "policy";

/// The component with its relay. `None` where there is nothing to relay, or no place for it that
/// leaves all else as it is. What comes out may be invalid where a function has another type than
/// it should; then so is the component.
pub(super) fn relayed(component: &[u8]) -> Option<Vec<u8>> {
    let layout = Layout::read(component)?;
    let first = layout.sections.first()?.whole.start;
    let relay = relay(&layout.relayed_names());
    let mut out = component[..first].to_vec();
    ModuleSection(&relay).append_to_component(&mut out);
    InstanceSection::new()
        .instantiate(
            layout.modules,
            [(ORIGIN, ModuleArg::Instance(layout.origin))],
        )
        .append_to_component(&mut out);
    let mut copied = first;
    for section in &layout.sections {
        out.extend(&component[copied..section.whole.start]);
        section.redirected(component, layout.instances, &mut out);
        copied = section.whole.end;
    }
    out.extend(&component[copied..]);
    Some(out)
}

/// Where things are in a component.
#[derive(Default)]
struct Layout {
    /// Core modules and core instances, which a relay and its instance come after.
    modules: u32,
    instances: u32,
    /// The instance that exports the functions.
    origin: u32,
    /// The alias sections that take them from it.
    sections: Vec<AliasSection>,
}

struct AliasSection {
    /// With its header.
    whole: Range<usize>,
    contents: Range<usize>,
    /// Of the aliases to redirect: the index of the function in [`RELAYED`], and where in the
    /// component the index of the instance stands.
    aliases: Vec<(usize, Range<usize>)>,
}

/// Where the index of the instance stands in an alias: behind two bytes for its sort and one for
/// its kind.
const INDEX_OFFSET: usize = 3;

impl Layout {
    fn read(component: &[u8]) -> Option<Self> {
        let mut layout = Self::default();
        let (mut depth, mut end) = (0_usize, 0);
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload.ok()?;
            if depth == 0 {
                let contents = match &payload {
                    Payload::Version { range, .. } => Some(range.clone()),
                    other => other.as_section().map(|(_, range)| range),
                };
                if let Some(contents) = contents {
                    let whole = end..contents.end;
                    end = contents.end;
                    layout.take(component, &payload, whole)?;
                }
            }
            match payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        (!layout.sections.is_empty()).then_some(layout)
    }

    /// `None` where a section leaves no place for a relay.
    fn take(&mut self, component: &[u8], payload: &Payload<'_>, whole: Range<usize>) -> Option<()> {
        let (modules, instances) = match payload {
            Payload::ModuleSection { .. } => (1, 0),
            Payload::InstanceSection(section) => (0, section.count()),
            Payload::ComponentImportSection(section) => {
                let mut imports = section.clone().into_iter();
                let is_module = |ty| matches!(ty, ComponentTypeRef::Module(_));
                let none = imports.all(|import| import.is_ok_and(|import| !is_module(import.ty)));
                return none.then_some(());
            }
            Payload::ComponentAliasSection(section) => {
                return self.take_aliases(component, section, whole);
            }
            _ => return Some(()),
        };
        self.modules += modules;
        self.instances += instances;
        // The relay and its instance must be the last ones, or the indices of others would change.
        self.sections.is_empty().then_some(())
    }

    fn take_aliases(
        &mut self,
        component: &[u8],
        section: &ComponentAliasSectionReader<'_>,
        whole: Range<usize>,
    ) -> Option<()> {
        let mut aliases = Vec::new();
        for alias in section.clone().into_iter_with_offsets() {
            let (offset, alias) = alias.ok()?;
            match alias {
                ComponentAlias::CoreInstanceExport {
                    kind: ExternalKind::Func,
                    instance_index,
                    name,
                } => {
                    let Some(function) = RELAYED.iter().position(|(relayed, _)| *relayed == name)
                    else {
                        continue;
                    };
                    if self.sections.is_empty() && aliases.is_empty() {
                        self.origin = instance_index;
                    } else if self.origin != instance_index {
                        return None;
                    }
                    let (start, index) = (offset + INDEX_OFFSET, encoded(instance_index));
                    if !component[start..].starts_with(&index) {
                        return None; // padded
                    }
                    aliases.push((function, start..start + index.len()));
                }
                ComponentAlias::InstanceExport {
                    kind: ComponentExternalKind::Module,
                    ..
                }
                | ComponentAlias::Outer {
                    kind: ComponentOuterAliasKind::CoreModule,
                    ..
                } => return None,
                _ => {}
            }
        }
        if !aliases.is_empty() {
            self.sections.push(AliasSection {
                whole,
                contents: section.range(),
                aliases,
            });
        }
        Some(())
    }

    /// Those that there are, each once, as their places in [`RELAYED`].
    fn relayed_names(&self) -> Vec<usize> {
        let aliases = self.sections.iter().flat_map(|section| &section.aliases);
        let mut functions: Vec<_> = aliases.map(|(function, _)| *function).collect();
        functions.sort_unstable();
        functions.dedup();
        functions
    }
}

impl AliasSection {
    /// Appends the section with its aliases taken from another instance.
    fn redirected(&self, component: &[u8], instance: u32, out: &mut Vec<u8>) {
        let mut data = Vec::with_capacity(self.contents.len() + 8);
        let mut copied = self.contents.start;
        for (_, index) in &self.aliases {
            data.extend(&component[copied..index.start]);
            data.extend(encoded(instance));
            copied = index.end;
        }
        data.extend(&component[copied..self.contents.end]);
        let section = RawSection {
            id: ComponentSectionId::Alias.into(),
            data: &data,
        };
        section.append_to_component(out);
    }
}

fn encoded(index: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.encode(&mut bytes);
    bytes
}

/// Imports functions of [`RELAYED`] and exports them.
fn relay(functions: &[usize]) -> Module {
    let (mut types, mut imports, mut exports) = (
        TypeSection::new(),
        ImportSection::new(),
        ExportSection::new(),
    );
    for (index, (name, parameters)) in (0..).zip(functions.iter().map(|&place| RELAYED[place])) {
        types
            .ty()
            .function(parameters.iter().copied(), [ValType::I32]);
        imports.import(ORIGIN, name, EntityType::Function(index));
        exports.export(name, ExportKind::Func, index);
    }
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&exports);
    module
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::Engine;
    use wasmtime::component::Component;

    /// A component whose core module exports `on-request`, with more before and after its alias.
    fn component(before: &str, after: &str) -> Vec<u8> {
        let text = format!(
            r#"(component
                (core module $main
                    (func (export "bazaar:policy/policy@1.0.0#on-request")
                        (param i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32) unreachable))
                (core instance $main (instantiate $main))
                {before}
                (alias core export $main "bazaar:policy/policy@1.0.0#on-request" (core func))
                {after})"#
        );
        wat::parse_str(text).unwrap()
    }

    fn compiles(component: &[u8]) -> bool {
        Component::from_binary(&Engine::default(), component).is_ok()
    }

    #[test]
    fn a_relay_goes_into_the_default_policy_of_each_world() {
        let of_1_0 = include_bytes!("../../../tests/policies/default-1.0.wasm");
        for policy in [crate::DEFAULT_POLICY, of_1_0] {
            let relayed = relayed(policy).unwrap();
            assert!(relayed.len() > policy.len());
            assert!(compiles(&relayed));
        }
    }

    #[test]
    fn what_comes_before_and_after_is_left_as_it_is() {
        let component = component("(type u8)", "(type u16)");
        let with_relay = relayed(&component).unwrap();
        assert!(compiles(&with_relay));
        assert!(with_relay.ends_with(&component[component.len() - 4..]));
    }

    #[test]
    fn nothing_is_changed_where_indices_would() {
        let instance = "(core instance (instantiate $main))";
        assert!(relayed(&component(instance, "")).is_some());
        assert_eq!(relayed(&component("", instance)), None);
    }

    #[test]
    fn there_may_be_nothing_to_relay() {
        assert_eq!(relayed(&wat::parse_str("(component)").unwrap()), None);
        assert_eq!(relayed(b"nonsense"), None);
        assert_eq!(relayed(b""), None);
    }
}
