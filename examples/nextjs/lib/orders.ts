// The orders that a user can mention with "@". In place of your database, and as `examples/shop.py` knows them.

import type { User } from "./session";

export type Order = { id: string; title: string; state: string };

const ORDERS: readonly Order[] = [
  { id: "order-7", title: "Order 7", state: "on its way" },
  { id: "order-8", title: "Order 8", state: "delivered" },
];

/** Orders of a user whose titles contain the words. */
export function findOrders(_user: User, words: string): readonly Order[] {
  return ORDERS.filter(({ title }) => title.toLowerCase().includes(words.trim().toLowerCase()));
}
