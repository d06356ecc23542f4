import { forwardForUser } from "@/lib/for-user";

export const dynamic = "force-dynamic";

export function POST(request: Request): Promise<Response> {
  return forwardForUser(request, "/api/chatkit");
}
