//! The macro that declares an object of the Compose file: its attributes in order, each with its [`Key`].
//!
//! [`Key`]: super::Key

/// Declares a struct together with its printing ([`super::Emit`], `serde::Serialize`) from one list of attributes.
macro_rules! object {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty = $key:expr,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $crate::model::Emit for $name {
            fn is_empty(&self) -> bool {
                $($crate::model::Emit::is_empty(&self.$field))&&*
            }

            fn emit(&self, dialect: $crate::model::Dialect) -> $crate::model::Value {
                use $crate::model::Key;
                let mut attributes = $crate::model::emit::Attributes::new(dialect);
                $({
                    const KEY: Key = $key;
                    attributes.add(KEY, &self.$field);
                })*
                attributes.finish()
            }
        }

        impl $crate::model::decode::Decode for $name {
            fn decode<'n>(
                node: &'n $crate::yaml::Node,
                at: &mut $crate::model::decode::Decoder<'n>,
            ) -> Self {
                use $crate::model::Key;
                at.object(node);
                Self {
                    $($field: {
                        const KEY: Key = $key;
                        $crate::model::decode::attribute(KEY, node, at)
                    },)*
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::model::Emit::emit(self, $crate::model::Dialect::Json).serialize(serializer)
            }
        }
    };
}
