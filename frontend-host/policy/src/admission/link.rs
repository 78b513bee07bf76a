//! That a component fits a world: what it imports, and what it exports.

use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::compile::Compiled;
use super::rejection::{Problem, Rejection};
use crate::guest::bindings::{World, type_problem};
use crate::guest::compiler::causes;
use crate::guest::digest::Digest;
use crate::guest::engine::Engine;
use crate::guest::instance::Template;
use crate::guest::version::Version;
use crate::guest::wasi::not_granted;

/// A component that has its imports, and exports what a policy must.
pub(super) struct Linked {
    digest: Digest,
    world: World,
    template: Arc<Template>,
}

impl Linked {
    /// The component of a version.
    pub(super) fn of(version: &Version) -> Self {
        let (world, template) = version.template();
        Self {
            digest: version.component,
            world,
            template,
        }
    }

    pub(super) fn into_parts(self) -> (Digest, World, Arc<Template>) {
        (self.digest, self.world, self.template)
    }
}

/// Gives a component its imports.
pub(super) fn link(engine: &Engine, compiled: Compiled) -> Result<Linked, Rejection> {
    let (digest, component) = compiled.into_parts();
    let world = fitted_world(&component)?;
    let template = Template::link(engine, world, &component).map_err(|error| Problem::World {
        interface: world.interface(),
        problem: causes(&error),
    })?;
    Ok(Linked {
        digest,
        world,
        template: Arc::new(template),
    })
}

/// The world that a component is made for, and fits.
fn fitted_world(component: &Component) -> Result<World, Rejection> {
    let mut problems: Vec<_> = not_granted(component).map(Problem::from).collect();
    match World::of(component) {
        Some(world) => {
            problems.extend(export_problems(component, world));
            Rejection::check(problems).map(|()| world)
        }
        None => {
            problems.extend(no_world_problems(component));
            Err(Rejection::Unfit(problems))
        }
    }
}

fn export_problems(component: &Component, world: World) -> Vec<Problem> {
    let (engine, ty) = (component.engine(), component.component_type());
    let interface = world.interface();
    let exported = component.get_export(None, interface);
    let problem = |function: &'static str| {
        let export = match &exported {
            Some((ComponentItem::ComponentInstance(policy), _)) => {
                policy.get_export(engine, function)
            }
            _ => None,
        };
        match export {
            None => Some(Problem::Missing {
                interface,
                function,
            }),
            Some(export) => {
                type_problem(world, &ty, function, &export.ty).map(|problem| Problem::Mistyped {
                    interface,
                    function,
                    problem,
                })
            }
        }
    };
    world.functions().into_iter().filter_map(problem).collect()
}

fn no_world_problems(component: &Component) -> Vec<Problem> {
    let newest = World::ALL[0].interface();
    let unversioned = |name: &str| name.split('@').next() == newest.split('@').next();
    let ty = component.component_type();
    let mut exports = ty.exports(component.engine());
    if let Some((name, _)) = exports.find(|(name, _)| unversioned(name)) {
        return vec![Problem::Version {
            exported: name.to_owned(),
            called: World::ALL.map(World::interface),
        }];
    }
    let missing = |function| Problem::Missing {
        interface: newest,
        function,
    };
    World::ALL[0].functions().map(missing).into()
}
