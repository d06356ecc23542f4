import { Bubble } from "../bubble";
import { clientConfigFor } from "@/lib/client-config";
import { findOrders } from "@/lib/orders";
import { currentUser } from "@/lib/session";

/** A page of the product, with the chat in its corner. */
export default async function Shop() {
  const user = await currentUser();
  return (
    <main className="shop">
      <h1>Your orders</h1>
      {user ? (
        <>
          <ul>
            {findOrders(user, "").map(({ id, title, state }) => (
              <li key={id} id={id}>
                {title}: {state}
              </li>
            ))}
          </ul>
          <Bubble key={user.id} user={user} config={await clientConfigFor(user)} />
        </>
      ) : (
        <p>
          <a href="/">Sign in</a> to see them.
        </p>
      )}
    </main>
  );
}
