//! A loader: `/account/7` is a user's JSON, fetched from the upstream `shop`, in an answer of
//! our own.

const std = @import("std");
const lamina = @import("lamina");

/// At the top: a list made inside a function is gone when it returns.
const json = [_]lamina.Header{.{ .name = .of("content-type"), .value = .of("application/json") }};

/// `config` of the YAML, as JSON text. To refuse it: `.{ .wrong = "what is wrong" }`. `load`
/// gets the headers and cookies that the manifest's `reads` names.
pub fn describe(config: []const u8) lamina.Description {
    _ = config;
    return .{ .manifest = .{ .name = .of("{{name}}"), .version = .of("0.1.0") } };
}

/// What is returned is cached like an origin's response; `context` has the deadline.
pub fn load(request: lamina.Request, context: lamina.Context) lamina.LoadDecision {
    _ = context;
    const id = idOf(request.path_and_query.slice()) orelse return .absent;
    const path = lamina.join(&.{ "/api/user/", id });
    return switch (lamina.fetch(.{ .upstream = .of("shop"), .path_and_query = .of(path) })) {
        .response => |user| switch (user.status) {
            200 => .{ .response = account(id, user.body.slice()) },
            404 => .absent,
            else => |status| failed("the user's API answered with status {d}", .{status}),
        },
        .failed => |why| failed("the user's API: {s}", .{@tagName(why.tag)}),
    };
}

/// The number at the end of the path, or null: what goes into another path must be known.
fn idOf(path_and_query: []const u8) ?[]const u8 {
    var parts = std.mem.splitScalar(u8, std.mem.sliceTo(path_and_query, '?'), '/');
    _ = parts.next(); // before the first slash
    _ = parts.next() orelse return null;
    const id = parts.next() orelse return null;
    if (id.len == 0 or parts.next() != null) return null;
    for (id) |digit| if (!std.ascii.isDigit(digit)) return null;
    return id;
}

/// The answer, made of what the user's API said, which is JSON.
fn account(id: []const u8, user: []const u8) lamina.Response {
    const tags = lamina.alloc(lamina.Text, 1);
    tags[0] = .of(lamina.join(&.{ "user-", id }));
    return .{
        .status = 200,
        .headers = .of(&json),
        .body = .of(lamina.join(&.{ "{\"user\": ", user, "}" })),
        .ttl = .{ .is_some = true, .ms = 10_000 },
        .tags = .of(tags),
    };
}

fn failed(comptime words: []const u8, of: anytype) lamina.LoadDecision {
    const memory = lamina.alloc(u8, 128);
    return .{ .failed = std.fmt.bufPrint(memory, words, of) catch "it failed" };
}

comptime {
    lamina.loader(@This());
}
