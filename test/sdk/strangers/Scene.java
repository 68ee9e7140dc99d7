// The scene of strangers_test.go, played by the public client from Maven, which speaks Protobuf alone.

import io.github.centrifugal.centrifuge.*;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

public class Scene {
  static synchronized void say(Object... words) {
    System.out.println(Arrays.stream(words).map(String::valueOf).collect(Collectors.joining(" ")));
  }

  static String text(byte[] data) {
    return new String(data, StandardCharsets.UTF_8);
  }

  static <T> T result(java.util.function.Consumer<ResultCallback<T>> call) throws Exception {
    CompletableFuture<T> f = new CompletableFuture<>();
    call.accept((error, value) -> {
      if (error != null) f.completeExceptionally(error);
      else f.complete(value);
    });
    return f.get(60, TimeUnit.SECONDS);
  }

  public static void main(String[] args) throws Exception {
    Options options = new Options();
    options.setToken(System.getenv("TOKEN"));
    options.setMinReconnectDelay(20);
    options.setMaxReconnectDelay(300);
    options.setTimeout(30_000);
    options.setTokenGetter(new ConnectionTokenGetter() {
      @Override
      public void getConnectionToken(ConnectionTokenEvent event, TokenCallback cb) {
        say("refreshed");
        cb.Done(null, System.getenv("FRESH"));
      }
    });
    Client client = new Client(System.getenv("URL"), options, new EventListener() {
      @Override
      public void onDisconnected(Client client, DisconnectedEvent event) {
        say("disconnected", event.getCode());
      }
    });
    CountDownLatch subscribed = new CountDownLatch(1), ended = new CountDownLatch(1);
    Subscription sub = client.newSubscription(System.getenv("CHANNEL"), new SubscriptionEventListener() {
      @Override
      public void onSubscribed(Subscription sub, SubscribedEvent event) {
        say("subscribed", event.wasRecovering(), event.getRecovered());
        subscribed.countDown();
      }

      @Override
      public void onPublication(Subscription sub, PublicationEvent event) {
        say("got", event.getOffset(), text(event.getData()));
        if (text(event.getData()).contains("\"end\"")) ended.countDown();
      }
    });
    sub.subscribe();
    client.connect();
    if (!subscribed.await(60, TimeUnit.SECONDS)) throw new IllegalStateException("not subscribed");
    PresenceResult presence = Scene.<PresenceResult>result(sub::presence);
    say("presence", presence.getClients().values().stream().map(ClientInfo::getUser).collect(Collectors.joining(",")));
    Scene.<PublishResult>result(cb -> sub.publish("{\"from\":\"maven\"}".getBytes(StandardCharsets.UTF_8), cb));
    HistoryResult history = Scene.<HistoryResult>result(cb -> sub.history(new HistoryOptions.Builder().withLimit(10).build(), cb));
    say("history", history.getPublications().stream().map(p -> text(p.getData())).collect(Collectors.joining(",")));
    String time = text(Scene.<RPCResult>result(cb -> client.rpc("time", new byte[0], cb)).getData());
    say("rpc", time.matches("\\{\"time\":\\d+}") ? "number" : time);
    CompletableFuture<byte[]> heard = new CompletableFuture<>();
    Subscription bytes = client.newSubscription(System.getenv("BYTES"), new SubscriptionEventListener() {
      @Override
      public void onPublication(Subscription sub, PublicationEvent event) {
        heard.complete(event.getData());
      }
    });
    bytes.subscribe();
    Scene.<PublishResult>result(cb -> bytes.publish(new byte[] {0, (byte) 255, 10}, cb));
    byte[] got = heard.get(60, TimeUnit.SECONDS);
    say("bytes", (got[0] & 255) + "," + (got[1] & 255) + "," + (got[2] & 255));
    bytes.unsubscribe();
    say("ready");
    ended.await(2, TimeUnit.MINUTES);
    client.disconnect();
    client.close(5000);
    System.exit(0); // threads of the SDK's outlive it
  }
}
