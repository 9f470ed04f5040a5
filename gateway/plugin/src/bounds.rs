//! Limits of the structure of a plugin's file, checked in one cheap pass before anything else reads
//! it: further checks take time and memory that grow with the square of some of these numbers.
//!
//! A file that can't be read to its end passes: the check of the code reports what is wrong with
//! it.

use std::fmt;

use serde::{Deserialize, Serialize};
use wasmparser::{
    BinaryReaderError, ComponentType, ComponentTypeDeclaration, CoreType, InstanceTypeDeclaration,
    ModuleTypeDeclaration, Parser, Payload,
};

/// A part of a file that is limited in number or size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeBound {
    /// Components and modules nested in one another, and types of components nested in one another.
    Nesting,
    /// Functions of all modules, and those that components lift, lower or import.
    Functions,
    /// Bytes of the largest function.
    FunctionBytes,
    /// Imports of all modules and components.
    Imports,
    /// Types of all modules and components, with those inside them.
    Types,
    /// Modules and components that are instantiated, and the items that are taken out of them.
    Instances,
}

/// A file has more of a part than is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OverLimit {
    pub part: CodeBound,
    pub found: u64,
}

impl CodeBound {
    /// How much of it is accepted. The largest real plugins, with a whole Python or JavaScript
    /// engine in them, use between a tenth and a quarter of each limit.
    pub fn limit(self) -> u64 {
        match self {
            Self::Nesting => 16,
            Self::Functions => 200_000,
            Self::FunctionBytes => 1 << 20,
            Self::Imports => 20_000,
            Self::Types => 100_000,
            Self::Instances => 50_000,
        }
    }
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, limit) = (self.found, self.part.limit());
        match self.part {
            CodeBound::Nesting => write!(
                f,
                "components or their types are nested {found} deep; at most {limit} are accepted"
            ),
            CodeBound::Functions => {
                write!(f, "it has {found} functions; at most {limit} are accepted")
            }
            CodeBound::FunctionBytes => write!(
                f,
                "one of its functions has {found} bytes; at most {limit} are accepted"
            ),
            CodeBound::Imports => write!(f, "it has {found} imports; at most {limit} are accepted"),
            CodeBound::Types => write!(f, "it has {found} types; at most {limit} are accepted"),
            CodeBound::Instances => write!(
                f,
                "it has {found} instances and aliases; at most {limit} are accepted"
            ),
        }
    }
}

/// Counts, and fails at the first limit that is exceeded.
pub(super) fn check(wasm: &[u8]) -> Result<(), OverLimit> {
    let mut tally = CodeTally::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { break };
        match tally.take(payload) {
            Ok(()) => {}
            Err(ScanStop::Over(over)) => return Err(over),
            Err(ScanStop::Unreadable) => break,
        }
    }
    Ok(())
}

#[derive(Default)]
struct CodeTally {
    depth: u64,
    functions: u64,
    imports: u64,
    types: u64,
    instances: u64,
}

enum ScanStop {
    Over(OverLimit),
    Unreadable,
}

impl From<BinaryReaderError> for ScanStop {
    fn from(_: BinaryReaderError) -> Self {
        Self::Unreadable
    }
}

fn within(part: CodeBound, found: u64) -> Result<(), ScanStop> {
    match found > part.limit() {
        true => Err(ScanStop::Over(OverLimit { part, found })),
        false => Ok(()),
    }
}

impl CodeTally {
    fn take(&mut self, payload: Payload<'_>) -> Result<(), ScanStop> {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                self.depth += 1;
                within(CodeBound::Nesting, self.depth)
            }
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::FunctionSection(reader) => self.functions(reader.count()),
            Payload::ComponentCanonicalSection(reader) => self.functions(reader.count()),
            Payload::CodeSectionEntry(body) => {
                within(CodeBound::FunctionBytes, body.range().len() as u64)
            }
            Payload::ImportSection(reader) => {
                for import in reader.into_imports() {
                    import?;
                    self.import()?;
                }
                Ok(())
            }
            Payload::ComponentImportSection(reader) => {
                for import in reader {
                    import?;
                    self.import()?;
                }
                Ok(())
            }
            Payload::TypeSection(reader) => {
                for group in reader {
                    self.types(group?.types().len())?;
                }
                Ok(())
            }
            Payload::CoreTypeSection(reader) => {
                for ty in reader {
                    self.core_type(&ty?)?;
                }
                Ok(())
            }
            Payload::ComponentTypeSection(reader) => {
                for ty in reader {
                    self.component_type(&ty?, self.depth)?;
                }
                Ok(())
            }
            Payload::InstanceSection(reader) => self.instances(reader.count()),
            Payload::ComponentInstanceSection(reader) => self.instances(reader.count()),
            Payload::ComponentAliasSection(reader) => self.instances(reader.count()),
            _ => Ok(()),
        }
    }

    fn functions(&mut self, more: u32) -> Result<(), ScanStop> {
        self.functions += u64::from(more);
        within(CodeBound::Functions, self.functions)
    }

    fn instances(&mut self, more: u32) -> Result<(), ScanStop> {
        self.instances += u64::from(more);
        within(CodeBound::Instances, self.instances)
    }

    fn import(&mut self) -> Result<(), ScanStop> {
        self.imports += 1;
        within(CodeBound::Imports, self.imports)
    }

    fn types(&mut self, more: usize) -> Result<(), ScanStop> {
        self.types += more as u64;
        within(CodeBound::Types, self.types)
    }

    fn core_type(&mut self, ty: &CoreType<'_>) -> Result<(), ScanStop> {
        match ty {
            CoreType::Rec(group) => self.types(group.types().len()),
            CoreType::Module(declared) => {
                self.types(1)?;
                declared.iter().try_for_each(|one| match one {
                    ModuleTypeDeclaration::Type(group) => self.types(group.types().len()),
                    _ => self.types(1),
                })
            }
        }
    }

    /// The recursion adds no risk: the parser has already recursed to the same depth, and a stack
    /// overflow ends only the compiling process.
    fn component_type(&mut self, ty: &ComponentType<'_>, depth: u64) -> Result<(), ScanStop> {
        self.types(1)?;
        let inner = depth + 1;
        match ty {
            ComponentType::Component(declared) => {
                within(CodeBound::Nesting, inner)?;
                declared.iter().try_for_each(|one| match one {
                    ComponentTypeDeclaration::Type(ty) => self.component_type(ty, inner),
                    ComponentTypeDeclaration::CoreType(ty) => self.core_type(ty),
                    _ => self.types(1),
                })
            }
            ComponentType::Instance(declared) => {
                within(CodeBound::Nesting, inner)?;
                declared.iter().try_for_each(|one| match one {
                    InstanceTypeDeclaration::Type(ty) => self.component_type(ty, inner),
                    InstanceTypeDeclaration::CoreType(ty) => self.core_type(ty),
                    _ => self.types(1),
                })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(wat: &str) -> Option<OverLimit> {
        check(&wat::parse_str(wat).unwrap()).err()
    }

    fn nested(open: &str, depth: usize) -> String {
        format!("(component {}{})", open.repeat(depth), ")".repeat(depth))
    }

    #[test]
    fn components_and_their_types_may_be_nested_so_deep_and_no_deeper() {
        let limit = CodeBound::Nesting.limit() as usize;
        assert_eq!(over(&nested("(component ", limit)), None);
        let deep = over(&nested("(component ", limit + 1)).unwrap();
        assert_eq!((deep.part, deep.found), (CodeBound::Nesting, 17));
        let types = |depth: usize| {
            format!(
                "(component {}{})",
                "(type (component ".repeat(depth),
                "))".repeat(depth)
            )
        };
        assert_eq!(over(&types(limit)), None);
        assert_eq!(over(&types(limit + 1)).unwrap().part, CodeBound::Nesting);
    }

    #[test]
    fn a_function_has_a_size_and_modules_so_many_of_them() {
        let branches = |n: usize| {
            let body = "(br_if 0 (local.get 0))".repeat(n);
            format!("(module (func (param i32) (block {body})))")
        };
        assert_eq!(over(&branches(10_000)), None);
        let large = over(&branches(400_000)).unwrap();
        assert_eq!(large.part, CodeBound::FunctionBytes);
        let many = format!(
            "(component {})",
            "(core module (func) (func) (func))".repeat(66_667)
        );
        assert_eq!(over(&many).unwrap().part, CodeBound::Functions);
    }

    #[test]
    fn imports_and_types_are_counted_wherever_they_are() {
        let imports = r#"(import "a" "b" (func))"#.repeat(20_001);
        let wat = format!("(component (core module {imports}))");
        assert_eq!(over(&wat).unwrap().part, CodeBound::Imports);
        let inner = "(type (tuple u8 u8))".repeat(50_001);
        let wat = format!("(component (type (component {inner})) (type (instance {inner})))");
        assert_eq!(over(&wat).unwrap().part, CodeBound::Types);
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_check_of_the_code() {
        assert_eq!(check(b"\0asm\x01\0\0\0\x0a\xff"), Ok(()));
        assert_eq!(check(b"\0asm"), Ok(()));
    }
}
