export function startAsking() {}
