import { forwardForUser } from "@/lib/for-user";

export const dynamic = "force-dynamic";

/** Stop the running turn of a thread. */
export async function POST(request: Request, { params }: { params: Promise<{ threadId: string }> }): Promise<Response> {
  const { threadId } = await params;
  return forwardForUser(request, `/api/threads/${encodeURIComponent(threadId)}/stop`);
}
