import { forwardForUser } from "@/lib/for-user";

export const dynamic = "force-dynamic";

/** The running turn of a thread as an event stream; 204 if none is running. */
export async function GET(request: Request, { params }: { params: Promise<{ threadId: string }> }): Promise<Response> {
  const { threadId } = await params;
  return forwardForUser(request, `/api/threads/${encodeURIComponent(threadId)}/live`);
}
