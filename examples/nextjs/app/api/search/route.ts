import { forwardForUser } from "@/lib/for-user";

export const dynamic = "force-dynamic";

/** Messages and titles of the signed-in user with the words of a query. */
export async function GET(request: Request): Promise<Response> {
  return forwardForUser(request, `/api/search${new URL(request.url).search}`);
}
