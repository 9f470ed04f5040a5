//! Key plugins in Zig: the world `key-plugin` of ../wit.
//!
//! A plugin has two functions, `describe` and `derive`, and says
//! `comptime { lamina.plugin(@This()); }`. It is linked with
//! ../c/key_plugin_component_type.s, which holds the world in binary form; README.md has
//! the command.
//!
//! The structs have the layout that the component model's canonical ABI prescribes for
//! 32-bit memories. Memory comes from one arena that is emptied after each call: nothing is
//! ever freed by hand.

const std = @import("std");

/// Text, UTF-8.
pub const Text = extern struct {
    ptr: ?[*]const u8 = null,
    len: usize = 0,

    /// Text with these bytes, which must outlive the call.
    pub fn of(bytes: []const u8) Text {
        return .{ .ptr = bytes.ptr, .len = bytes.len };
    }

    /// Its bytes.
    pub fn slice(self: Text) []const u8 {
        return if (self.ptr) |ptr| ptr[0..self.len] else "";
    }
};

fn List(comptime Item: type) type {
    return extern struct {
        ptr: ?[*]const Item = null,
        len: usize = 0,

        /// A list of these, which must outlive the call.
        pub fn of(items: []const Item) @This() {
            return .{ .ptr = items.ptr, .len = items.len };
        }

        /// Its items.
        pub fn slice(self: @This()) []const Item {
            return if (self.ptr) |ptr| ptr[0..self.len] else &.{};
        }
    };
}

pub const Texts = List(Text);
/// A header line, its name in lower case, or a cookie.
pub const Field = extern struct { name: Text, value: Text };
pub const Fields = List(Field);

/// What `derive` gets: what the manifest declared, and nothing else.
pub const KeyInputs = struct {
    method: ?[]const u8,
    host: ?[]const u8,
    path: ?[]const u8,
    query: ?[]const u8,
    headers: []const Field,
    cookies: []const Field,
};

/// The value of the first field of this name.
pub fn valueOf(fields: []const Field, name: []const u8) ?[]const u8 {
    for (fields) |field| {
        if (std.mem.eql(u8, field.name.slice(), name)) return field.value.slice();
    }
    return null;
}

pub const KeyNeeds = extern struct {
    method: bool = false,
    host: bool = false,
    path: bool = false,
    query: Query = .{},
    headers: Texts = .{},
    cookies: Texts = .{},

    pub const Query = extern struct {
        tag: enum(u8) { none, whole, parameters } = .none,
        parameters: Texts = .{},
    };
};

pub const KeyRules = extern struct {
    has_keep: bool = false,
    keep: Texts = .{},
    drop: Texts = .{},
    sort: bool = false,
    headers: Texts = .{},
    cookies: Texts = .{},
};

pub const Manifest = extern struct {
    name: Text,
    version: Text,
    inputs: KeyNeeds = .{},
    is_declarative: bool = false,
    declarative: KeyRules = .{},
    /// Of hooks that this kit does not have.
    reads: extern struct { headers: Texts = .{}, cookies: Texts = .{} } = .{},
};

/// What `describe` answers: a manifest, or what is wrong with the configuration.
pub const Description = union(enum) { manifest: Manifest, wrong: []const u8 };

pub const CacheKey = extern struct { text: Text, parts: Texts = .{}, tags: Texts = .{} };

/// What `derive` answers.
pub const Decision = union(enum) {
    default,
    key: CacheKey,
    bypass: []const u8,
    refuse: u16,
};

const WireDescription = extern struct {
    is_error: bool,
    value: extern union { manifest: Manifest, wrong: Text },
};

const WireDecision = extern struct {
    tag: enum(u8) { default, key, bypass, refuse },
    value: extern union { key: CacheKey, bypass: Text, refuse: u16 },
};

/// Far more than a request's header block: when it is full something is wrong, and a trap,
/// which costs this one call, is the right answer.
var arena: [256 << 10]u8 align(8) = undefined;
var used: usize = 0;
/// What the configuration took; it stays for the life of the instance.
var kept: usize = 0;

/// Memory until the end of the call.
pub fn alloc(comptime Item: type, count: usize) []Item {
    const bytes = take(count * @sizeOf(Item));
    return @as([*]Item, @ptrCast(@alignCast(bytes)))[0..count];
}

/// The texts one after the other, in memory of the call.
pub fn join(texts: []const []const u8) []const u8 {
    var length: usize = 0;
    for (texts) |text| length += text.len;
    const joined = alloc(u8, length);
    var at: usize = 0;
    for (texts) |text| {
        @memcpy(joined[at..][0..text.len], text);
        at += text.len;
    }
    return joined;
}

fn take(size: usize) [*]align(8) u8 {
    const start = std.mem.alignForward(usize, used, 8);
    if (size > arena.len or start > arena.len - size) @trap();
    used = start + size;
    return @alignCast(arena[start..].ptr);
}

/// Exports the functions of a plugin as the contract names them.
pub fn plugin(comptime Plugin: type) void {
    const exports = struct {
        var description: WireDescription = undefined;
        var decision: WireDecision = undefined;

        fn realloc(old: [*]const u8, old_size: usize, _: usize, size: usize) callconv(.c) [*]u8 {
            const fresh = take(size); // every piece is aligned for anything
            const both = @min(old_size, size);
            @memcpy(fresh[0..both], old[0..both]);
            return fresh;
        }

        fn describe(config: ?[*]const u8, length: usize) callconv(.c) *const WireDescription {
            const text: Text = .{ .ptr = config, .len = length };
            description = switch (Plugin.describe(text.slice())) {
                .manifest => |manifest| .{ .is_error = false, .value = .{ .manifest = manifest } },
                .wrong => |wrong| .{ .is_error = true, .value = .{ .wrong = Text.of(wrong) } },
            };
            kept = used;
            return &description;
        }

        fn derive(
            has_method: i32,
            method: Text0,
            method_len: usize,
            has_host: i32,
            host: Text0,
            host_len: usize,
            has_path: i32,
            path: Text0,
            path_len: usize,
            has_query: i32,
            query: Text0,
            query_len: usize,
            headers: ?[*]const Field,
            headers_len: usize,
            cookies: ?[*]const Field,
            cookies_len: usize,
        ) callconv(.c) *const WireDecision {
            decision = switch (Plugin.derive(KeyInputs{
                .method = optional(has_method, method, method_len),
                .host = optional(has_host, host, host_len),
                .path = optional(has_path, path, path_len),
                .query = optional(has_query, query, query_len),
                .headers = (Fields{ .ptr = headers, .len = headers_len }).slice(),
                .cookies = (Fields{ .ptr = cookies, .len = cookies_len }).slice(),
            })) {
                .default => .{ .tag = .default, .value = .{ .refuse = 0 } },
                .key => |key| .{ .tag = .key, .value = .{ .key = key } },
                .bypass => |why| .{ .tag = .bypass, .value = .{ .bypass = Text.of(why) } },
                .refuse => |status| .{ .tag = .refuse, .value = .{ .refuse = status } },
            };
            return &decision;
        }

        fn done(_: *const WireDecision) callconv(.c) void {
            used = kept;
        }
    };
    @export(&exports.realloc, .{ .name = "cabi_realloc" });
    @export(&exports.describe, .{ .name = "lamina:plugin/manifest@1.0.0#describe" });
    @export(&exports.derive, .{ .name = "lamina:plugin/key@1.0.0#derive" });
    @export(&exports.done, .{ .name = "cabi_post_lamina:plugin/key@1.0.0#derive" });
}

const Text0 = ?[*]const u8;

fn optional(is_some: i32, ptr: Text0, len: usize) ?[]const u8 {
    return if (is_some != 0) (Text{ .ptr = ptr, .len = len }).slice() else null;
}
