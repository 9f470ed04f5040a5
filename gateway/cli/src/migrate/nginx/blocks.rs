//! The blocks around a directive, and which directives hold in them.

use std::rc::Rc;

use super::super::source::SourceStatement;
use super::rewrites::ServerRewrites;

/// The blocks around a directive, the innermost first, each without the servers and locations in it. A
/// directive of an outer block holds where no inner one has it.
#[derive(Clone)]
pub struct BlockChain<'a> {
    blocks: Vec<Rc<[&'a SourceStatement]>>,
    rewrites: Rc<ServerRewrites>,
}

impl<'a> BlockChain<'a> {
    /// What holds in the block around all servers.
    pub fn of_http(block: &'a [SourceStatement]) -> Self {
        Self {
            blocks: vec![statements_of(block)],
            rewrites: Rc::default(),
        }
    }

    /// What holds in this server inside of that.
    pub fn within_server(&self, server: &'a SourceStatement) -> Self {
        Self {
            rewrites: Rc::new(ServerRewrites::of(server)),
            ..self.within(server.inside())
        }
    }

    /// What holds in this block inside of these.
    pub fn within(&self, inner: &'a [SourceStatement]) -> Self {
        let inner = std::iter::once(statements_of(inner));
        Self {
            blocks: inner.chain(self.blocks.iter().cloned()).collect(),
            rewrites: Rc::clone(&self.rewrites),
        }
    }

    /// The `rewrite` directives of the server around.
    pub fn rewrites(&self) -> &ServerRewrites {
        &self.rewrites
    }

    /// The statements of each block, the innermost first.
    pub fn blocks(&self) -> impl Iterator<Item = &[&'a SourceStatement]> {
        self.blocks.iter().map(|block| &**block)
    }

    /// The directives of this name that hold here.
    pub fn directives(&self, name: &str) -> Vec<&'a SourceStatement> {
        let of_block = |block: &Rc<[&'a SourceStatement]>| -> Vec<&'a SourceStatement> {
            let all = block.iter().copied();
            all.filter(|one| one.name() == name).collect()
        };
        let mut levels = self.blocks.iter().map(of_block);
        levels.find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// Those with this ending for the protocol by which the innermost block reaches its server: what is
    /// said of FastCGI does not hold for HTTP. A block that names no server may mean any of them.
    pub fn cache_directives(&self, ending: &str) -> Vec<&'a SourceStatement> {
        let kinds = ["proxy_", "fastcgi_", "uwsgi_", "scgi_"];
        let passes = |kind: &&&str| {
            let name = format!("{kind}pass");
            self.has_in_innermost(&name)
        };
        let used: Vec<&str> = kinds.iter().filter(passes).copied().collect();
        let used = match used.is_empty() {
            true if self.has_in_innermost("grpc_pass") => Vec::new(),
            true => kinds.to_vec(),
            false => used,
        };
        let names = used.into_iter().map(|kind| format!("{kind}{ending}"));
        names.flat_map(|name| self.directives(&name)).collect()
    }

    fn has_in_innermost(&self, name: &str) -> bool {
        let innermost = self.blocks.first();
        innermost.is_some_and(|block| block.iter().any(|one| one.name() == name))
    }

    /// The first directive of this name that holds here.
    pub fn first(&self, name: &str) -> Option<&'a SourceStatement> {
        self.directives(name).first().copied()
    }
}

/// The statements of a block without the servers and locations in it.
fn statements_of(block: &[SourceStatement]) -> Rc<[&SourceStatement]> {
    let inside = block.iter();
    let kept = inside.filter(|one| !matches!(one.name(), "server" | "location" | "upstream"));
    kept.collect()
}
