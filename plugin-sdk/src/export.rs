//! The macros that make a type into a component's exports.

/// Exports a [`KeyPlugin`](crate::KeyPlugin): `lamina_plugin::export_key!(MyType);`
#[macro_export]
macro_rules! export_key {
    ($plugin:ty) => {
        const _: () = {
            $crate::__export_manifest!($plugin, $crate::KeyPlugin);
            $crate::__export_key!($plugin);
        };
    };
}

/// Exports a [`LoaderPlugin`](crate::LoaderPlugin): `lamina_plugin::export_loader!(MyType);`
#[macro_export]
macro_rules! export_loader {
    ($plugin:ty) => {
        const _: () = {
            $crate::__export_manifest!($plugin, $crate::LoaderPlugin);
            $crate::__export_load!($plugin);
        };
    };
}

/// Exports a type that is both a [`KeyPlugin`](crate::KeyPlugin) and a
/// [`LoaderPlugin`](crate::LoaderPlugin); `new` and `manifest` of the former count.
#[macro_export]
macro_rules! export_key_and_loader {
    ($plugin:ty) => {
        const _: () = {
            $crate::__export_manifest!($plugin, $crate::KeyPlugin);
            $crate::__export_key!($plugin);
            $crate::__export_load!($plugin);
        };
    };
}

/// Exports a [`RequestPlugin`](crate::RequestPlugin): `lamina_plugin::export_request!(MyType);`
#[macro_export]
macro_rules! export_request {
    ($plugin:ty) => {
        const _: () = {
            $crate::__export_manifest!($plugin, $crate::RequestPlugin);

            impl $crate::bindings::asking::exports::lamina::plugin::on_request::Guest for Exported {
                fn handle(request: $crate::RequestHead) -> $crate::RequestDecision {
                    with(|plugin| <$plugin as $crate::RequestPlugin>::on_request(plugin, request))
                }
            }

            $crate::bindings::asking::export_asking!(Exported with_types_in $crate::bindings::asking);
        };
    };
}

/// Exports a [`ResponsePlugin`](crate::ResponsePlugin): `lamina_plugin::export_response!(MyType);`
#[macro_export]
macro_rules! export_response {
    ($plugin:ty) => {
        const _: () = {
            $crate::__export_manifest!($plugin, $crate::ResponsePlugin);

            impl $crate::bindings::answering::exports::lamina::plugin::on_response::Guest for Exported {
                fn handle(request: $crate::RequestHead, response: $crate::ResponseHead) -> $crate::ResponseDecision {
                    with(|plugin| <$plugin as $crate::ResponsePlugin>::on_response(plugin, request, response))
                }
            }

            $crate::bindings::answering::export_answering!(Exported with_types_in $crate::bindings::answering);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_manifest {
    ($plugin:ty, $hook:path) => {
        struct Exported;

        ::std::thread_local! {
            static PLUGIN: ::std::cell::OnceCell<$plugin> = const { ::std::cell::OnceCell::new() };
        }

        fn with<R>(f: impl FnOnce(&$plugin) -> R) -> R {
            PLUGIN.with(|plugin| f(plugin.get().expect("`describe` is the first call in every instance")))
        }

        impl $crate::bindings::exports::lamina::plugin::manifest::Guest for Exported {
            fn describe(config: ::std::string::String) -> ::std::result::Result<$crate::Manifest, ::std::string::String> {
                $crate::start();
                let plugin = <$plugin as $hook>::new(&config)?;
                let manifest = <$plugin as $hook>::manifest(&plugin);
                PLUGIN.with(|slot| _ = slot.set(plugin));
                Ok(manifest)
            }
        }

        $crate::bindings::export_describing!(Exported with_types_in $crate::bindings);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_key {
    ($plugin:ty) => {
        impl $crate::bindings::keying::exports::lamina::plugin::key::Guest for Exported {
            fn derive(inputs: $crate::KeyInputs) -> $crate::KeyDecision {
                with(|plugin| <$plugin as $crate::KeyPlugin>::key(plugin, &inputs))
            }
        }

        $crate::bindings::keying::export_keying!(Exported with_types_in $crate::bindings::keying);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_load {
    ($plugin:ty) => {
        impl $crate::bindings::loading::exports::lamina::plugin::load::Guest for Exported {
            fn load(request: $crate::Request, context: $crate::Context) -> $crate::LoadDecision {
                with(|plugin| <$plugin as $crate::LoaderPlugin>::load(plugin, request, context))
            }
        }

        $crate::bindings::loading::export_loading!(Exported with_types_in $crate::bindings::loading);
    };
}

/// Sends panics to the gateway's log. The export macros call it.
pub fn start() {
    std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string())));
}
