//! The component's interface, as wasmtime generates it from `wit/`, and its conversion from
//! and to the gateway's own types. Nothing outside this module names a generated type.
//!
//! A component is of one version of the world, which the name of its export says:
//!
//! - here: which one that is, and one way to call them all;
//! - [`v1_2`]: the newest, in which the gateway thinks;
//! - [`v1_1`] and [`v1_0`]: those before, in terms of the newest.

use domain::{Invalid, Protocol, ReplicaId};
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Component, InstancePre};
use wasmtime::{AsContextMut, Engine};

use crate::decision::{Decision, InvalidDecision, Manifest, Outcome, PolicyRequest, View};

mod v1_0;
mod v1_1;
mod v1_2;

/// The default policy as native code.
#[cfg(feature = "native-policy")]
mod native;

/// Whether native code decides, whatever component is loaded. A constant, so that the code that
/// is not used is compiled all the same.
#[cfg(feature = "native-policy")]
const NATIVE: bool = true;

/// A version of the world that policies are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// Of `wit/1.0`: a policy has no configuration, sees text alone, and lists all stocks at once.
    V1_0,
    /// Of `wit/1.1`: a policy lists no orders.
    V1_1,
    V1_2,
}

/// The interfaces of policies that a gateway hosts, newest first.
pub const WORLDS: [&str; 3] = [
    World::ALL[0].interface(),
    World::ALL[1].interface(),
    World::ALL[2].interface(),
];

impl World {
    /// Those that a gateway hosts, newest first.
    pub(crate) const ALL: [Self; 3] = [Self::V1_2, Self::V1_1, Self::V1_0];

    /// The interface that a policy exports.
    pub(crate) const fn interface(self) -> &'static str {
        match self {
            Self::V1_0 => "bazaar:policy/policy@1.0.0",
            Self::V1_1 => "bazaar:policy/policy@1.1.0",
            Self::V1_2 => "bazaar:policy/policy@1.2.0",
        }
    }

    /// From which version of the services' protocol on every gateway of a bazaar can start a policy of it.
    pub(crate) const fn since(self) -> Protocol {
        match self {
            Self::V1_0 | Self::V1_1 => Protocol::FIRST,
            Self::V1_2 => Protocol::WORLD_1_2,
        }
    }

    /// The functions that a policy exports.
    pub(crate) const fn functions(self) -> [&'static str; 4] {
        match self {
            Self::V1_0 => ["describe", "on-request", "on-outcome", "elect"],
            Self::V1_1 | Self::V1_2 => ["configure", "on-request", "on-outcome", "elect"],
        }
    }

    /// That of a component: the newest that it exports. By the very name, since a lookup takes a
    /// later minor version for an earlier one.
    pub(crate) fn of(component: &Component) -> Option<Self> {
        let (ty, engine) = (component.component_type(), component.engine());
        let is_exported = |world: &Self| {
            let mut exports = ty.exports(engine);
            exports.any(|(name, _)| name == world.interface())
        };
        Self::ALL.into_iter().find(is_exported)
    }
}

/// What is wrong with the type of one of a world's [functions](World::functions), as a component exports it. Compares as the
/// generated code does when a component is instantiated.
pub(crate) fn type_problem(
    world: World,
    component: &types::Component,
    function: &str,
    export: &ComponentItem,
) -> Option<String> {
    let ComponentItem::ComponentFunc(exported) = export else {
        return Some("it is not a function".to_owned());
    };
    let checked = match world {
        World::V1_0 => v1_0::typecheck(component, function, exported),
        World::V1_1 => v1_1::typecheck(component, function, exported),
        World::V1_2 => v1_2::typecheck(component, function, exported),
    };
    checked.err().map(|error| format!("{error:#}"))
}

/// A call's two ways to fail: the component did not answer, or answered nonsense.
pub(crate) type Answer<T> = Result<Result<T, InvalidDecision>, wasmtime::Error>;

/// A component whose imports are there, ready to be instantiated.
pub(crate) enum FrontEndPre<T: 'static> {
    V1_0(v1_0::FrontEndPre<T>),
    V1_1(v1_1::FrontEndPre<T>),
    V1_2(v1_2::FrontEndPre<T>),
}

impl<T: 'static> FrontEndPre<T> {
    pub(crate) fn new(world: World, pre: InstancePre<T>) -> wasmtime::Result<Self> {
        Ok(match world {
            World::V1_0 => Self::V1_0(v1_0::FrontEndPre::new(pre)?),
            World::V1_1 => Self::V1_1(v1_1::FrontEndPre::new(pre)?),
            World::V1_2 => Self::V1_2(v1_2::FrontEndPre::new(pre)?),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        match self {
            Self::V1_0(pre) => pre.engine(),
            Self::V1_1(pre) => pre.engine(),
            Self::V1_2(pre) => pre.engine(),
        }
    }

    pub(crate) fn instantiate(
        &self,
        store: impl AsContextMut<Data = T>,
    ) -> wasmtime::Result<FrontEnd> {
        Ok(match self {
            Self::V1_0(pre) => FrontEnd::V1_0(pre.instantiate(store)?),
            Self::V1_1(pre) => FrontEnd::V1_1(pre.instantiate(store)?),
            Self::V1_2(pre) => FrontEnd::V1_2(pre.instantiate(store)?),
        })
    }
}

/// An instance of a component.
pub(crate) enum FrontEnd {
    V1_0(v1_0::FrontEnd),
    V1_1(v1_1::FrontEnd),
    V1_2(v1_2::FrontEnd),
}

impl FrontEnd {
    /// What the policy says of itself, or what is wrong with its configuration; one of
    /// [`World::V1_0`] has none.
    pub(crate) fn configure(
        &self,
        store: impl AsContextMut,
        config: &[u8],
    ) -> Answer<Result<Manifest, String>> {
        match self {
            Self::V1_0(front_end) => front_end.configure(store),
            Self::V1_1(front_end) => front_end.configure(store, config),
            Self::V1_2(front_end) => front_end.configure(store, config),
        }
    }

    /// What to do about a request.
    pub(crate) fn on_request(
        &self,
        store: impl AsContextMut,
        request: &PolicyRequest<'_>,
    ) -> Answer<Decision> {
        #[cfg(feature = "native-policy")]
        if NATIVE {
            return native::on_request(request);
        }
        match self {
            Self::V1_0(front_end) => front_end.on_request(store, request),
            Self::V1_1(front_end) => front_end.on_request(store, request),
            Self::V1_2(front_end) => front_end.on_request(store, request),
        }
    }

    /// What to do about an outcome.
    pub(crate) fn on_outcome(
        &self,
        store: impl AsContextMut,
        request: &PolicyRequest<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Answer<Decision> {
        #[cfg(feature = "native-policy")]
        if NATIVE {
            return native::on_outcome(request, memo, outcome);
        }
        match self {
            Self::V1_0(front_end) => front_end.on_outcome(store, request, memo, outcome),
            Self::V1_1(front_end) => front_end.on_outcome(store, request, memo, outcome),
            Self::V1_2(front_end) => front_end.on_outcome(store, request, memo, outcome),
        }
    }

    pub(crate) fn elect(&self, store: impl AsContextMut, view: &View) -> Answer<Option<ReplicaId>> {
        let elected = match self {
            Self::V1_0(front_end) => front_end.elect(store, view)?,
            Self::V1_1(front_end) => front_end.elect(store, view)?,
            Self::V1_2(front_end) => front_end.elect(store, view)?,
        };
        let Some(elected) = elected else {
            return Ok(Ok(None));
        };
        let mut ids = view.replicas.iter().map(|replica| replica.id);
        let known = ids.find(|id| id.get() == elected);
        Ok(known.map(Some).ok_or_else(|| {
            InvalidDecision(format!("it elected replica {elected}, which there is not"))
        }))
    }
}

fn invalid<T>(problem: impl Into<String>) -> Result<T, InvalidDecision> {
    Err(InvalidDecision(problem.into()))
}

impl From<Invalid> for InvalidDecision {
    fn from(invalid: Invalid) -> Self {
        Self(invalid.to_string())
    }
}
