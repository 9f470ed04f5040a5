// The listing of players, by the same recipe as gateway/cache/benches/record/listing.rs.

const START = 1_700_000_000_000;

function player(i) {
  return {
    id: `player-${String(i).padStart(8, "0")}`,
    device: {
      os: i % 2 ? "android" : "ios",
      version: "17.4.1",
      model: i % 3 ? "iphone-15-pro-max" : "pixel-8-pro",
      screen: { width: 1290, height: 2796, ppi: 460 },
    },
    languages: ["en-US", "hi-IN", "es-ES", "fr-FR"],
    userSnapshot: {
      name: `User Name ${i}`,
      email: `user_${i}@example.com`,
      level: (13 * i) % 100,
      joinedAt: new Date(START + 1000 * i).toISOString(),
      flags: { vip: i % 7 === 0, banned: false, newUser: i % 11 === 0 },
      stats: { wins: 3 * i, losses: 2 * i, draws: i, mmr: 1500 + (i % 800) },
    },
    infoCards: [
      { title: "stats", body: { wins: i, losses: i + 1, streak: i % 10 } },
      { title: "rank", body: { tier: "gold", division: 2, points: 1234 + i } },
      { title: "inventory", body: { gold: 9999, gems: 250, items: 42 } },
    ],
    friends: [0, 1, 2, 3, 4].map((slot) => `player-${(i + slot) % 1000}`),
  };
}

export function listing(players) {
  return {
    pagination: { page: 1, perPage: players, total: players, hasMore: false },
    filters: { region: "global", mode: "ranked", season: 12 },
    players: Array.from({ length: players }, (_, i) => player(i)),
  };
}
