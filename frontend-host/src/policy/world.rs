//! Whether a component fits the world: what it imports, and what it exports.

use wasmtime::component::Component;
use wasmtime::component::types::{self, ComponentItem};

use super::bindings::{FUNCTIONS, INTERFACE, type_problem};
use super::refused::Problem;
use super::wasi::not_granted;

/// Everything about a component's imports and exports that keeps it from serving.
pub(super) fn problems(component: &Component) -> Vec<Problem> {
    let world = component.component_type();
    let mut problems: Vec<_> = not_granted(component).map(Problem::from).collect();
    problems.extend(export_problems(component, &world));
    problems
}

fn export_problems(component: &Component, world: &types::Component) -> Vec<Problem> {
    let engine = component.engine();
    if let Some((ComponentItem::ComponentInstance(interface), _)) =
        component.get_export(None, INTERFACE)
    {
        let function_problem = |function: &'static str| match interface.get_export(engine, function)
        {
            None => Some(Problem::Missing {
                interface: INTERFACE,
                function,
            }),
            Some(export) => {
                type_problem(world, function, &export.ty).map(|problem| Problem::Mistyped {
                    interface: INTERFACE,
                    function,
                    problem,
                })
            }
        };
        return FUNCTIONS.into_iter().filter_map(function_problem).collect();
    }
    let unversioned = INTERFACE
        .split_once('@')
        .map_or(INTERFACE, |(name, _)| name);
    let is_other_version =
        |name: &str| name.split_once('@').map_or(name, |(name, _)| name) == unversioned;
    let mut exports = world.exports(engine);
    if let Some((name, _)) = exports.find(|(name, _)| is_other_version(name)) {
        return vec![Problem::Version {
            exported: name.to_owned(),
            called: INTERFACE,
        }];
    }
    let missing = |function| Problem::Missing {
        interface: INTERFACE,
        function,
    };
    FUNCTIONS.map(missing).into()
}
