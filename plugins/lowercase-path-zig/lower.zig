//! The pure part: ASCII letters in lower case, percent-encodings as they are.

const std = @import("std");

/// Writes `path` into `out`, which is as long, in lower case. `%2F` stays `%2F`: its letters
/// are no letters of the path.
pub fn lower(out: []u8, path: []const u8) void {
    var digits: usize = 0;
    for (path, out) |byte, *to| {
        to.* = if (digits > 0) byte else std.ascii.toLower(byte);
        digits = if (byte == '%') 2 else digits -| 1;
    }
}

fn expect(path: []const u8, wanted: []const u8) !void {
    var buffer: [64]u8 = undefined;
    lower(buffer[0..path.len], path);
    try std.testing.expectEqualStrings(wanted, buffer[0..path.len]);
}

test "letters are in lower case" {
    try expect("/Shop/TEA-2", "/shop/tea-2");
}

test "what is in lower case stays" {
    try expect("/shop", "/shop");
    try expect("", "");
}

test "percent-encodings stay as they are" {
    try expect("/A%2FB%c3%A4C", "/a%2Fb%c3%A4c");
    try expect("/A%", "/a%");
}
